// One object of the program, which enters itself into a list when the program starts.
#pragma once

namespace linkage {

constexpr int tokens = 111, experts = 33, sequences = 3;

struct part {
  const char* name;
  float (*run)(const float* logits, const float* anchors, float* grad);   // the loss, and its gradient
  part* next;

  part(const char* its_name, float (*its_run)(const float*, const float*, float*));
  static part*& first();   // main.cpp's alone: an inline one would be one of the bodies that the linker chooses among
};

}   // namespace linkage
