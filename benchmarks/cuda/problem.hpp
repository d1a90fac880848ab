// A batch of routers on which the fused loss is measured, and what it must come to, by the tests' naive double oracle. Layers are made
// and solved side by side, since there are tens of millions of logits.
#pragma once

#include <sara/core/sequences.hpp>

#include <atomic>
#include <exception>
#include <thread>

#include "../expected.hpp"
#include "../random_data.hpp"

namespace benchmarks {

template <class Run> void each_at_once(index_t count, const Run& run) {
  std::atomic<index_t> next = 0;
  std::exception_ptr broken;
  std::atomic_flag breaks;
  const auto work = [&] {
    try {
      for (index_t i = next++; i < count; i = next++) run(i);
    } catch (...) {
      if (!breaks.test_and_set()) broken = std::current_exception();
    }
  };
  std::vector<std::jthread> helpers;
  for (index_t i = 1; i < std::min<index_t>(count, std::thread::hardware_concurrency()); ++i) helpers.emplace_back(work);
  work();
  helpers.clear();
  if (broken) std::rethrow_exception(broken);
}

enum class batching { uniform, ragged, interleaved };

struct batch_shape {
  index_t layers, tokens, experts, length;   // length: of a sequence; ragged: the mean, about
  batching how = batching::uniform;

  auto operator<=>(const batch_shape&) const = default;
  index_t elements() const { return layers * tokens * experts; }
};

// "48x8192x128/1024" is layers x tokens x experts, in sequences of so many tokens.
inline std::string text(const batch_shape& s) {
  const char* const how = s.how == batching::ragged ? "ragged-about-" : s.how == batching::interleaved ? "interleaved-" : "";
  return std::to_string(s.layers) + "x" + std::to_string(s.tokens) + "x" + std::to_string(s.experts) + "/" + how + std::to_string(s.length);
}

// Offsets of sequences of 1/16 of the mean length to four times it, by chance.
inline std::vector<std::int32_t> ragged_offsets(index_t tokens, index_t mean) {
  std::mt19937_64 bits(5);
  std::uniform_real_distribution<double> exponent(std::log(static_cast<double>(mean) / 16), std::log(4.0 * static_cast<double>(mean)));
  std::vector<std::int32_t> offsets{0};
  while (offsets.back() < tokens)
    offsets.push_back(
        static_cast<std::int32_t>(std::min<index_t>(tokens, offsets.back() + 1 + static_cast<index_t>(std::exp(exponent(bits))))));
  return offsets;
}

// Every token counts once, every sequence has an anchor of its own.
template <class T> struct routing_problem {
  explicit routing_problem(const batch_shape& s)
      : shape(s),
        offsets(s.how == batching::ragged ? ragged_offsets(s.tokens, s.length) : std::vector<std::int32_t>{}),
        sequences(s.how == batching::ragged ? static_cast<index_t>(offsets.size()) - 1 : s.tokens / s.length) {
    const std::size_t of_layer = static_cast<std::size_t>(s.tokens * s.experts), units = static_cast<std::size_t>(s.layers * sequences);
    logits.resize(static_cast<std::size_t>(s.layers) * of_layer);
    anchors.resize(units * static_cast<std::size_t>(s.experts));
    gradient.resize(logits.size());
    histograms.resize(anchors.size());
    std::vector<double> losses(static_cast<std::size_t>(s.layers));
    each_at_once(s.layers, [&](index_t l) {
      const auto at = static_cast<std::size_t>(l);
      const auto z = random_logits<T>(s.tokens * s.experts, 1 + static_cast<unsigned>(l));
      const auto q = random_distributions(sequences, s.experts, 100001 + static_cast<unsigned>(l));
      std::copy(z.begin(), z.end(), logits.begin() + static_cast<std::ptrdiff_t>(at * z.size()));
      std::copy(q.begin(), q.end(), anchors.begin() + static_cast<std::ptrdiff_t>(at * q.size()));
      oracle::problem p;
      p.tokens = static_cast<std::size_t>(s.tokens);
      p.experts = static_cast<std::size_t>(s.experts);
      p.anchor_count = p.sequences = static_cast<std::size_t>(sequences);
      p.length = static_cast<std::size_t>(s.length);
      p.layout = s.how == batching::uniform  ? oracle::layout::uniform
                 : s.how == batching::ragged ? oracle::layout::packed
                                             : oracle::layout::interleaved;
      p.offsets.assign(offsets.begin(), offsets.end());
      p.logits = as_double(z);
      p.anchors = as_double(q);
      p.total_layer_weight = static_cast<double>(s.layers);
      const auto solved = oracle::solve<double>(p, p.logits);
      losses[at] = solved.loss;
      std::copy(solved.histograms.begin(), solved.histograms.end(), histograms.begin() + static_cast<std::ptrdiff_t>(at * q.size()));
      std::copy(solved.grad.begin(), solved.grad.end(), gradient.begin() + static_cast<std::ptrdiff_t>(at * of_layer));
    });
    for (const double part : losses) loss += part;
  }

  // `device_offsets`: where the offsets of a ragged batch lie.
  sara::sequences_view view(const std::int32_t* device_offsets) const {
    if (shape.how == batching::ragged) return sara::sequences_view::packed(sara::integers_view(device_offsets, offsets.size()));
    if (shape.how == batching::interleaved) return sara::sequences_view::interleaved(shape.length, sequences);
    return sara::sequences_view::uniform(sequences, shape.length);
  }
  double error_of_loss(float got) const { return std::fabs(static_cast<double>(got) - loss) / loss; }

  batch_shape shape;
  std::vector<std::int32_t> offsets;   // ragged only
  index_t sequences;
  std::vector<T> logits;        // [layers, tokens, experts]
  std::vector<float> anchors;   // [layers, sequences, experts]
  double loss = 0;
  std::vector<double> histograms;   // [layers, sequences, experts]
  std::vector<double> gradient;     // [layers, tokens, experts]
};

// Of results in storage G, relative to the largest entry. Half a unit in bf16's last place is up to 2^-8 of an entry.
template <class G> inline constexpr double tolerance_of = sizeof(G) == 2 ? 0x1p-8 + 1e-4 : 4e-6;

}   // namespace benchmarks
