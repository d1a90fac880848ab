// One object of the program on a GPU, which enters itself into a list when the program starts.
#pragma once

namespace linkage {

constexpr int rows = 5, experts = 33;

enum class outcome { ran, failed, not_for_this_device };

struct cuda_part {
  const char* name;
  outcome (*run)(const float* p, const float* q, float* divergence);   // of the device's memory
  cuda_part* next;

  cuda_part(const char* its_name, outcome (*its_run)(const float*, const float*, float*));
  static cuda_part*& first();   // cuda_main.cu's alone
};

}   // namespace linkage
