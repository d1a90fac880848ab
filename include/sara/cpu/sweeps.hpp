// The two sweeps over sequences of logits: sums of softmax rows, a step on each sequence's sums, gradients of the rows.
// Knows no loss: the step in the middle is the caller's.
//
// A (layer, sequence) pair is a unit. Small units go whole to one worker, which makes its second sweep while the rows are warm.
// Units too large for that are cut into blocks that all workers share. Blocks depend on the sequence's length alone, and their
// sums are added in order, so results are the same bits for any number of workers.
//
// Work comes in phases: blocks of the first sweep, whole units, blocks of the second; a worker goes on to the next when nothing of the last
// is left to take. One that takes a second-sweep block may have to wait for its unit's step, whose blocks have all been taken by workers
// that do not wait: so any order of running the workers, one after the other included, ends.
#pragma once

#include <cmath>

#include "../core/sequences.hpp"
#include "executor.hpp"
#include "sequence_rows.hpp"

namespace sara {
inline namespace SARA_ABI {

struct sequence_plan {
  token_range rows;
  double mass = 0;           // sum of token weights
  double weight_scale = 1;   // power of two that brings the weights to about 1: exact, and out of reach of float's ends
};

template <class A>
void plan_sequences(const sequences_view& sequences, index_t tokens, const vector_view<const A>& token_weights, sequence_plan* plan) {
  for_each_sequence(sequences, tokens, [&](index_t s, const token_range& rows) {
    plan[s] = {rows, static_cast<double>(rows.count)};
    if (!token_weights.given()) return;
    double mass = 0;
    for (index_t i = 0; i < rows.count; ++i) mass += static_cast<double>(token_weights[rows.first + i * rows.step]);
    plan[s].mass = mass;
    const int exponent = mass > 0 && mass < HUGE_VAL ? std::ilogb(mass / static_cast<double>(rows.count)) : 0;
    if (exponent < -16 || exponent > 16) plan[s].weight_scale = std::ldexp(1.0, -exponent);   // most weights are near 1 as they are
  });
}

// The blocks of a sequence of `tokens` tokens: at most 64, of a multiple of rows_at_once tokens each.
struct block_cut {
  index_t length, blocks;

  explicit block_cut(index_t tokens) {
    constexpr index_t most = 64, least_tokens = 64;
    const index_t wanted = std::clamp<index_t>(tokens / least_tokens, 1, most);
    length = std::max<index_t>((tokens + wanted * rows_at_once - 1) / (wanted * rows_at_once) * rows_at_once, rows_at_once);
    blocks = std::max<index_t>((tokens + length - 1) / length, 1);
  }
};

// Step: bool has_weight(layer, sequence)          no: neither sweep reads the unit, its gradient is 0 (overwrite) or left alone
//       void without_weight(layer, sequence)      called in its stead
//       double operator()(layer, sequence, double* sums, double* work, A* slopes)
//                                                 from the weighted sums [experts] (its to change; unspecified if !first_sweep)
//                                                 to slopes [experts] and the coefficient of the gradient; work [experts] is free
template <class T, class G, class Step> class softmax_sweeps {
  using A = arithmetic_t<T>;

 public:
  layers_view<const T> logits;
  const sequence_plan* plan = nullptr;
  sequences_view sequences;
  vector_view<const A> token_weights;
  layers_view<G> gradient;   // not given: no second sweep
  gradient_mode mode = gradient_mode::overwrite;
  bool first_sweep = true;

  // Takes the memory for up to `workers` workers; counts it where the carver only counts.
  void take(carver& memory, int workers) {
    const index_t layers = logits.layers(), tokens = logits.rows(), experts = logits.columns();
    most_split_ = workers > 1 ? std::min<index_t>(layers * sequences.sequences(), split_share * workers) : 0;
    split_ = memory.take<split_unit>(most_split_);
    split_sums_ = memory.take<double>(first_sweep ? most_split_ * 64 * experts : 0);
    split_slopes_ = memory.take<A>(most_split_ * experts);
    workers_ = memory.take<worker_memory>(workers);
    const index_t longest = sequences.layout() == token_layout::packed ? tokens : sequences.length();
    for (int w = 0; w < workers; ++w) {
      worker_memory mine;
      mine.rows.take(memory, experts);
      mine.sums = memory.take<double>(2 * experts);
      mine.slopes = memory.take<A>(experts);
      // What many workers hold is to fit the caches together; and of more than 32 MiB the heap (glibc's) gives the pages back after each
      // call: to have them made anew cost two thirds as much as the call itself, of 16 threads with 4 MiB each.
      const index_t fits = std::min<index_t>(8 << 20, (28 << 20) / workers) / (mine.rows.stride * static_cast<index_t>(sizeof(A)));
      const bool parks = gradient.given() && first_sweep && (!can_park_in_gradient() || is_large_gradient());
      mine.parked_rows = parks ? std::min({longest, tokens, fits}) : 0;
      mine.parked = memory.take<A>(mine.parked_rows * mine.rows.stride);
      if (memory.carves()) workers_[w] = mine;
    }
  }

  void run(const cpu_executor& exec, instruction_set isa, Step& step) {
    isa_ = isa;
    step_ = &step;
    const index_t layers = logits.layers(), count = sequences.sequences();
    index_t planned = 0, sum_tickets = 0, gradient_tickets = 0;
    for (index_t s = 0; s < count; ++s) planned += plan[s].rows.count;
    const int workers = worth_workers(exec, layers * planned * logits.columns());

    split_count_ = 0;
    for (index_t s = 0; workers > 1 && s < count; ++s) {
      if (!is_split(s, workers, layers * planned)) continue;
      const block_cut cut(plan[s].rows.count);
      for (index_t l = 0; l < layers; ++l) {
        if (!step.has_weight(l, s)) continue;
        const index_t blocks = first_sweep ? cut.blocks : 1, at = split_count_ * logits.columns();
        new (split_ + split_count_) split_unit{l, s, sum_tickets, gradient_tickets, split_sums_ + 64 * at, split_slopes_ + at, {blocks}};
        sum_tickets += blocks;
        gradient_tickets += gradient.given() ? cut.blocks : 0;
        ++split_count_;
      }
    }
    const bool has_outside = gradient.given() && mode == gradient_mode::overwrite && sequences.layout() == token_layout::packed;
    const int busy = static_cast<int>(std::clamp<index_t>(sum_tickets + layers * count + gradient_tickets, 1, workers));
    block_shares sums(sum_tickets, busy), units(layers * count, busy), outsides(has_outside ? layers : 0, busy),
        gradients(gradient_tickets, busy);
    const auto take = [&](int worker) {
      sums.take(worker, [&](index_t ticket) { sum_block(ticket, worker); });
      units.take(worker, [&](index_t unit) {
        const index_t l = unit / count, s = unit % count;
        if (!step.has_weight(l, s)) return without_weight(l, s);
        if (workers == 1 || !is_split(s, workers, layers * planned)) whole_unit(l, s, worker);
      });
      outsides.take(worker, [&](index_t layer) { clear_outside(layer); });
      gradients.take<true>(worker, [&](index_t ticket) { gradient_block(ticket, worker); });   // from the end: the last rows are warm
      finish_past_caches();
    };
    run_workers(exec, busy, take);
  }

 private:
  static constexpr index_t split_share = 4;   // a unit is split if it is more than a fourth of a worker's share

  struct worker_memory {
    row_scratch<T, G> rows;
    double* sums = nullptr;   // [2, experts]: of a sequence, of a block
    A* slopes = nullptr;
    A* parked = nullptr;   // exponentials of a sequence that fits
    index_t parked_rows = 0;
  };
  struct split_unit {
    index_t layer, sequence, first_sum, first_gradient;
    double* partials;                 // [blocks, experts]
    A* slopes;                        // [experts]
    std::atomic<index_t> waiting;     // first-sweep blocks still to come
    std::atomic<bool> ready{false};   // the step is done
    double coefficient = 0;
  };

  bool can_park_in_gradient() const { return std::is_same_v<G, A> && mode == gradient_mode::overwrite; }
  bool is_large_gradient() const { return is_large<G>(gradient.layers() * gradient.rows() * gradient.columns()); }

  bool is_split(index_t s, int workers, index_t all_tokens) const {
    return plan[s].rows.count * split_share * workers > all_tokens && block_cut(plan[s].rows.count).blocks > 1;
  }

  template <class X> sequence_rows<X> rows_of(const matrix_view<X>& m, index_t s) const {
    return {m.data() + plan[s].rows.first * m.row_stride(), plan[s].rows.step * m.row_stride()};
  }
  const A* weights_of(index_t s) const { return token_weights.given() ? token_weights.data() + plan[s].rows.first : nullptr; }

  row_block<T> block_of(index_t l, index_t s, index_t b) const {
    const block_cut cut(plan[s].rows.count);
    const index_t begin = b * cut.length, end = std::min(plan[s].rows.count, begin + cut.length);
    return {isa_, rows_of(logits[l], s), weights_of(s), plan[s].rows.step, plan[s].weight_scale, begin, end, logits.columns()};
  }
  // How the gradient of a unit is written whose exponentials wait at `parked`.
  row_write how_written(index_t l, index_t s, const void* parked) const {
    const sequence_rows<G> to = rows_of(gradient[l], s);
    const void *const at = to.data, *const logits_at = rows_of(logits[l], s).data;
    const bool is_in_place = at == parked || at == logits_at;   // its lines are in the caches, being read
    return row_write_of<G>(mode, to.data, to.stride, logits.columns(), is_large_gradient() && !is_in_place);
  }
  // Where a unit's exponentials wait for the second sweep if not with its worker: the gradient's own rows, if they can hold them. Not if
  // these can be written past the caches instead, and exponentials are quick: 512-bit vectors make floats' again before memory brings them
  // back (measured on Zen 5: two thirds of the time).
  sequence_rows<A> parked_of(index_t l, index_t s) const {
    if constexpr (std::is_same_v<G, A>) {
      if (!first_sweep || !gradient.given() || !can_park_in_gradient()) return {};
      const bool exp_is_quick = isa_ == instruction_set::avx512 && sizeof(A) == sizeof(float);
      if (!exp_is_quick || how_written(l, s, nullptr) != row_write::past_caches) return rows_of(gradient[l], s);
    }
    return {};
  }
  void differentiate(index_t l, index_t s, index_t b, const sequence_rows<A>& parked, const A* slopes, double coefficient,
                     const worker_memory& mine) const {
    differentiate_softmax_rows<T, G>(block_of(l, s, b), {parked.data, parked.stride}, slopes, coefficient, how_written(l, s, parked.data),
                                     rows_of(gradient[l], s), mine.rows);
  }

  void whole_unit(index_t l, index_t s, int worker) {
    const worker_memory& mine = workers_[worker];
    const index_t tokens = plan[s].rows.count, experts = logits.columns(), blocks = block_cut(tokens).blocks;
    sequence_rows<A> parked = parked_of(l, s);
    const bool is_in_place = static_cast<const void*>(parked.data) == rows_of(logits[l], s).data;   // as the blocks of a split unit are
    if (gradient.given() && tokens <= mine.parked_rows && !is_in_place) parked = {mine.parked, mine.rows.stride};
    double *const sums = mine.sums, *const of_block = mine.sums + experts;
    if (first_sweep) {
      std::memset(sums, 0, static_cast<std::size_t>(experts) * sizeof(double));
      for (index_t b = 0; b < blocks; ++b) {
        sum_softmax_rows(block_of(l, s, b), parked, of_block, mine.rows);
        add_row(sums, of_block);
      }
      settle_one_expert(sums, s);
    }
    const double coefficient = (*step_)(l, s, sums, of_block, mine.slopes);
    if (!gradient.given()) return;
    for (index_t b = blocks; b-- > 0;)
      differentiate(l, s, b, parked, mine.slopes, coefficient, mine);   // backwards: the last rows are warm
  }

  // One expert takes all: its sum is the mass itself, exactly, or NaN.
  void settle_one_expert(double* sums, index_t s) const {
    if (logits.columns() == 1) sums[0] = plan[s].mass + (sums[0] - sums[0]);
  }

  void add_row(double* sums, const double* row) const {
    for (index_t e = 0; e < logits.columns(); ++e) sums[e] += row[e];
  }

  split_unit& unit_of(index_t ticket, index_t split_unit::*first) const {
    index_t u = split_count_ - 1;
    while (split_[u].*first > ticket) --u;
    return split_[u];
  }

  void sum_block(index_t ticket, int worker) {
    const worker_memory& mine = workers_[worker];
    split_unit& unit = unit_of(ticket, &split_unit::first_sum);
    const index_t experts = logits.columns(), b = ticket - unit.first_sum;
    if (first_sweep)
      sum_softmax_rows(block_of(unit.layer, unit.sequence, b), parked_of(unit.layer, unit.sequence), unit.partials + b * experts,
                       mine.rows);
    if (unit.waiting.fetch_sub(1, std::memory_order_acq_rel) != 1) return;

    if (first_sweep) {   // the last block is in: add all, in order
      std::memset(mine.sums, 0, static_cast<std::size_t>(experts) * sizeof(double));
      const index_t blocks = block_cut(plan[unit.sequence].rows.count).blocks;
      for (index_t i = 0; i < blocks; ++i) add_row(mine.sums, unit.partials + i * experts);
      settle_one_expert(mine.sums, unit.sequence);
    }
    unit.coefficient = (*step_)(unit.layer, unit.sequence, mine.sums, mine.sums + experts, unit.slopes);
    unit.ready.store(true, std::memory_order_release);
  }

  void gradient_block(index_t ticket, int worker) {
    split_unit& unit = unit_of(ticket, &split_unit::first_gradient);
    while (!unit.ready.load(std::memory_order_acquire)) std::this_thread::yield();
    differentiate(unit.layer, unit.sequence, ticket - unit.first_gradient, parked_of(unit.layer, unit.sequence), unit.slopes,
                  unit.coefficient, workers_[worker]);
  }

  void without_weight(index_t l, index_t s) {
    step_->without_weight(l, s);
    if (!gradient.given() || mode != gradient_mode::overwrite) return;
    const sequence_rows<G> rows = rows_of(gradient[l], s);
    for (index_t i = 0; i < plan[s].rows.count; ++i) clear_row(rows[i], logits.columns());
  }

  // Rows before the first and after the last offset belong to no sequence.
  void clear_outside(index_t l) {
    const index_t count = sequences.sequences(), tokens = logits.rows();
    const index_t begin = count ? plan[0].rows.first : tokens,
                  end = count ? plan[count - 1].rows.first + plan[count - 1].rows.count : tokens;
    const matrix_view<G> m = gradient[l];
    for (index_t t = 0; t < begin; ++t) clear_row(m.row(t), m.columns());
    for (index_t t = end; t < tokens; ++t) clear_row(m.row(t), m.columns());
  }

  instruction_set isa_ = instruction_set::vector128;
  Step* step_ = nullptr;
  worker_memory* workers_ = nullptr;
  split_unit* split_ = nullptr;
  double* split_sums_ = nullptr;
  A* split_slopes_ = nullptr;
  index_t most_split_ = 0, split_count_ = 0;
};

}   // namespace SARA_ABI
}   // namespace sara
