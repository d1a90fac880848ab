// Runs every part on one problem, where there is a GPU that it was compiled for: all must find the same divergences, and one must run.
// The argument, if there is one, says how many parts there must be.
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "cuda_part.hpp"

using namespace linkage;

cuda_part*& cuda_part::first() {
  static cuda_part* head = nullptr;
  return head;
}
cuda_part::cuda_part(const char* its_name, outcome (*its_run)(const float*, const float*, float*))
    : name(its_name), run(its_run), next(first()) {
  first() = this;
}

int main(int count, char** arguments) {
  int parts = 0, failures = 0, devices = 0, ran = 0;
  for (cuda_part* p = cuda_part::first(); p; p = p->next) ++parts;
  if (count > 1 && parts != std::atoi(arguments[1])) {
    std::printf("%d parts, not %s\n", parts, arguments[1]);
    return 1;
  }
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("skipped: no CUDA device");
    return 0;
  }
  float *memory = nullptr, *divergence = nullptr;   // of host and device
  cudaMallocManaged(&memory, 2 * rows * experts * sizeof(float));
  cudaMallocManaged(&divergence, 2 * rows * sizeof(float));
  for (int i = 0; i < 2 * rows * experts; ++i) memory[i] = static_cast<float>(1 + i * i % 101) / (51 * experts);
  for (cuda_part* p = cuda_part::first(); p; p = p->next) {
    float* const mine = divergence + (ran ? rows : 0);
    const outcome found = p->run(memory, memory + rows * experts, mine);
    bool agrees = found == outcome::ran;
    for (int r = 0; agrees && r < rows; ++r) agrees = mine[r] > 0 && std::fabs(mine[r] - divergence[r]) <= 1e-6f * divergence[r];
    std::printf("%-15s %s\n", p->name, found == outcome::not_for_this_device ? "is not for this device" : agrees ? "agrees" : "differs");
    failures += found != outcome::not_for_this_device && !agrees;
    ran += found == outcome::ran;
  }
  return ran ? failures : 1;
}
