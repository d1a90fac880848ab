// Random numbers that are the same on every standard library: SplitMix64 (Steele, Lea and Flood, 2014).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <utility>
#include <vector>

namespace sara_finetune {

class random_bits {
 public:
  explicit random_bits(std::uint64_t seed) : state_(seed) {}

  std::uint64_t operator()() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  double uniform() { return static_cast<double>((*this)() >> 11) * 0x1p-53; }   // [0, 1)

  // By Box and Muller's formula.
  double normal() {
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));   // 1 - uniform is never 0
    return radius * std::cos(2 * std::numbers::pi * uniform());
  }

  std::size_t below(std::size_t limit) { return static_cast<std::size_t>(uniform() * static_cast<double>(limit)); }

  template <class T> void shuffle(std::vector<T>& entries) {
    for (std::size_t i = entries.size(); i > 1; --i) std::swap(entries[i - 1], entries[below(i)]);
  }

 private:
  std::uint64_t state_;
};

// A seed of its own for each purpose.
inline std::uint64_t mixed(std::uint64_t seed, std::uint64_t purpose) {
  random_bits bits(seed);
  random_bits of_purpose(bits() ^ purpose);
  return of_purpose();
}

}   // namespace sara_finetune
