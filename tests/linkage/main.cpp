// Runs every part on one problem; loss and gradient agree with the first one's. The argument says how many parts there must be.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "part.hpp"

using namespace linkage;

part*& part::first() {
  static part* head = nullptr;
  return head;
}
part::part(const char* its_name, float (*its_run)(const float*, const float*, float*)) : name(its_name), run(its_run), next(first()) {
  first() = this;
}

int main(int, char** arguments) {
  std::vector<float> logits(tokens * experts), anchors(sequences * experts, 1.0f / experts);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = 3 * std::sin(static_cast<float>(i * i % 1009));

  int parts = 0, failures = 0;
  float first_loss = 0, largest = 0;
  std::vector<float> first_grad, grad(logits.size());
  for (part* p = part::first(); p; p = p->next, ++parts) {
    const float loss = p->run(logits.data(), anchors.data(), grad.data());
    if (first_grad.empty()) {
      first_loss = loss;
      first_grad = grad;
      for (const float g : grad) largest = std::max(largest, std::fabs(g));
    }
    float difference = 0;
    for (std::size_t i = 0; i < grad.size(); ++i) difference = std::max(difference, std::fabs(grad[i] - first_grad[i]));
    const bool agrees = std::fabs(loss - first_loss) <= 2e-6f * first_loss && difference <= 4e-6f * largest && loss > 0 && largest > 0;
    std::printf("%-11s loss %.9g, gradient %.2g of the largest entry from the first: %s\n", p->name, static_cast<double>(loss),
                static_cast<double>(difference / largest), agrees ? "agrees" : "differs");
    failures += !agrees;
  }
  if (parts != std::atoi(arguments[1])) {
    std::printf("%d parts, not %s\n", parts, arguments[1]);
    return 1;
  }
  return failures;
}
