// Runs every part on one problem, where there is a GPU; the divergences are the first one's. The argument says how many parts there
// must be.
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "cuda_part.hpp"

using namespace linkage;

cuda_part*& cuda_part::first() {
  static cuda_part* head = nullptr;
  return head;
}
cuda_part::cuda_part(const char* its_name, bool (*its_run)(const float*, const float*, float*))
    : name(its_name), run(its_run), next(first()) {
  first() = this;
}

int main(int, char** arguments) {
  int parts = 0, failures = 0, devices = 0;
  for (cuda_part* p = cuda_part::first(); p; p = p->next) ++parts;
  if (parts != std::atoi(arguments[1])) {
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
    float* const mine = divergence + (p == cuda_part::first() ? 0 : rows);
    bool agrees = p->run(memory, memory + rows * experts, mine);
    for (int r = 0; r < rows; ++r) agrees = agrees && mine[r] > 0 && std::fabs(mine[r] - divergence[r]) <= 1e-6f * divergence[r];
    std::printf("%-15s %s\n", p->name, agrees ? "agrees" : "differs");
    failures += !agrees;
  }
  return failures;
}
