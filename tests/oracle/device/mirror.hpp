// A call's arguments once more, in another memory.
//
// The bytes that the views of a call span are gathered into islands: two views that overlap share one, so that what lay in place, side by
// side or between two rows does so there. An island begins at the same address modulo 256 as on the host, so that what was not aligned is
// not, and its memory ends where it ends, so that a step beyond is seen by whoever watches memory.
#pragma once

#include <sara/gate_softmax.hpp>
#include <sara/js_divergence.hpp>
#include <sara/js_routing.hpp>
#include <sara/routing_histogram.hpp>
#include <sara/top_k.hpp>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <vector>

namespace oracle {

// Memory: void* take(bytes), aligned to 256 bytes; give_back(pointer); copy_there(to, from, bytes); copy_here(to, from, bytes); and
// wait(), when copies have been made.
template <class Memory> class mirror {
 public:
  explicit mirror(Memory& memory) : memory_(memory) {}
  ~mirror() {
    for (const island& i : islands_) memory_.give_back(i.block);
  }
  mirror(const mirror&) = delete;
  mirror& operator=(const mirror&) = delete;

  // First: what there is. A view of const is read, any other may be written.
  template <class T> void add(const sara::vector_view<T>& v) { add(v.data(), v.data() + v.size()); }
  template <class T> void add(const sara::matrix_view<T>& m) {
    if (m.rows() * m.columns() != 0) add(m.data(), m.row(m.rows() - 1) + m.columns());
  }
  template <class T> void add(const sara::layers_view<T>& v) {
    if (v.is_list() || v.layers() == 0) {
      for (sara::index_t l = 0; l < v.layers(); ++l) add(v[l]);
      return;
    }
    const sara::matrix_view<T> first = v[0], last = v[v.layers() - 1];
    if (first.rows() * first.columns() == 0) return;
    const auto [lower, upper] = first.data() < last.data() ? std::pair(first, last) : std::pair(last, first);
    add(lower.data(), upper.row(upper.rows() - 1) + upper.columns());   // one island, whatever lies between the layers
  }
  void add(const sara::integers_view& v) {
    const char* const data = static_cast<const char*>(v.data());
    add(data, data + v.bytes());
  }
  void add(const sara::sequences_view& v) { add(v.offsets()); }

  // Then: all of it goes there,
  void send() {
    std::sort(ranges_.begin(), ranges_.end(), [](const range& a, const range& b) { return a.begin < b.begin; });
    std::vector<range> merged;
    for (const range& r : ranges_) {
      if (merged.empty() || r.begin >= merged.back().end) {
        merged.push_back(r);
        continue;
      }
      merged.back().end = std::max(merged.back().end, r.end);
      merged.back().written = merged.back().written || r.written;
    }
    for (const range& r : merged) {
      const std::size_t shift = reinterpret_cast<std::uintptr_t>(r.begin) % 256;
      void* const block = memory_.take(shift + r.bytes());
      islands_.push_back({r, block, static_cast<char*>(block) + shift});
      if (reinterpret_cast<std::uintptr_t>(block) % 256 != 0) throw std::logic_error("the mirror's memory is not aligned to 256 bytes");
      memory_.copy_there(islands_.back().there, r.begin, r.bytes());
    }
  }

  // is seen by the same views,
  template <class T> sara::vector_view<T> moved(const sara::vector_view<T>& v) const { return {moved(v.data(), v.size()), v.size()}; }
  template <class T> sara::matrix_view<T> moved(const sara::matrix_view<T>& m) const {
    return {moved(m.data(), m.rows() * m.columns()), m.rows(), m.columns(), m.row_stride()};
  }
  template <class T> sara::layers_view<T> moved(const sara::layers_view<T>& v) {
    if (v.layers() == 0) return v;
    if (!v.is_list()) {
      const sara::matrix_view<T> first = moved(v[0]);
      const sara::index_t stride = v.layers() > 1 ? v[1].data() - v[0].data() : 0;
      return {first.data(), v.layers(), v.rows(), v.columns(), first.row_stride(), stride};
    }
    const auto list = std::make_shared<std::vector<sara::matrix_view<T>>>();
    for (sara::index_t l = 0; l < v.layers(); ++l) list->push_back(moved(v[l]));
    lists_.push_back(list);
    return *list;
  }
  sara::integers_view moved(const sara::integers_view& v) const {
    if (v.bytes() == v.size() * 8) return {moved(static_cast<const std::int64_t*>(v.data()), v.size()), v.size()};
    return {moved(static_cast<const std::int32_t*>(v.data()), v.size()), v.size()};
  }
  sara::sequences_view moved(const sara::sequences_view& v) const {
    if (!v.given() || v.layout() != sara::token_layout::packed) return v;
    return sara::sequences_view::packed(moved(v.offsets()), v.length());
  }

  // and comes back. What was only to be read must not have changed.
  void fetch() {
    std::vector<std::vector<char>> inputs(islands_.size());
    for (std::size_t i = 0; i < islands_.size(); ++i) {
      const island& from = islands_[i];
      if (!from.written) inputs[i].resize(from.bytes());
      memory_.copy_here(from.written ? from.begin : inputs[i].data(), from.there, from.bytes());
    }
    memory_.wait();
    for (std::size_t i = 0; i < islands_.size(); ++i)
      if (!std::equal(inputs[i].begin(), inputs[i].end(), islands_[i].begin)) throw std::logic_error("the call wrote to an input");
  }

 private:
  struct range {
    char *begin, *end;
    bool written;
    std::size_t bytes() const { return static_cast<std::size_t>(end - begin); }
  };
  struct island : range {
    void* block;
    char* there;
  };

  template <class T> void add(T* begin, T* end) {
    if (begin == end) return;
    const auto byte = [](T* p) { return reinterpret_cast<char*>(const_cast<std::remove_const_t<T>*>(p)); };
    ranges_.push_back({byte(begin), byte(end), !std::is_const_v<T>});
  }

  // A pointer to no elements stays as it is: null, or not.
  template <class T> T* moved(T* p, sara::index_t elements) const {
    if (elements == 0) return p;
    char* const at = reinterpret_cast<char*>(const_cast<std::remove_const_t<T>*>(p));
    const auto after = std::upper_bound(islands_.begin(), islands_.end(), at, [](const char* a, const island& i) { return a < i.begin; });
    if (after != islands_.begin() && at < std::prev(after)->end)
      return reinterpret_cast<T*>(std::prev(after)->there + (at - std::prev(after)->begin));
    throw std::logic_error("the mirror has no such memory");
  }

  Memory& memory_;
  std::vector<range> ranges_;
  std::vector<island> islands_;
  std::vector<std::shared_ptr<void>> lists_;
};

// f(view) for every view of a call's inputs or outputs. Each names all members: a new one must be named here, too, to compile.
template <class F, class... Views> void each_of(F& f, Views&... views) { (f(views), ...); }

template <class T, class F> void each_view(sara::gate_softmax_inputs<T>& of, F f) {
  auto& [logits] = of;
  each_of(f, logits);
}
template <class T, class P, class F> void each_view(sara::gate_softmax_outputs<T, P>& of, F f) {
  auto& [probs, log_sum_exp] = of;
  each_of(f, probs, log_sum_exp);
}
template <class P, class F> void each_view(sara::gate_softmax_backward_inputs<P>& of, F f) {
  auto& [probs, grad_probs, grad_log_sum_exp] = of;
  each_of(f, probs, grad_probs, grad_log_sum_exp);
}
template <class P, class G, class F> void each_view(sara::gate_softmax_backward_outputs<P, G>& of, F f) {
  auto& [grad_logits] = of;
  each_of(f, grad_logits);
}

template <class T, class V, class F> void each_view(sara::top_k_inputs<T, V>& of, F f) {
  auto& [scores, values] = of;
  each_of(f, scores, values);
}
template <class T, class I, class F> void each_view(sara::top_k_outputs<T, I>& of, F f) {
  auto& [indices, weights] = of;
  each_of(f, indices, weights);
}
template <class V, class I, class F> void each_view(sara::top_k_backward_inputs<V, I>& of, F f) {
  auto& [indices, grad_weights, values] = of;
  each_of(f, indices, grad_weights, values);
}
template <class V, class G, class F> void each_view(sara::top_k_backward_outputs<V, G>& of, F f) {
  auto& [grad_values] = of;
  each_of(f, grad_values);
}

template <class T, class F> void each_view(sara::routing_histogram_inputs<T>& of, F f) {
  auto& [logits, sequences, token_weights] = of;
  each_of(f, logits, sequences, token_weights);
}
template <class T, class F> void each_view(sara::routing_histogram_outputs<T>& of, F f) {
  auto& [histograms, sums, token_mass] = of;
  each_of(f, histograms, sums, token_mass);
}
template <class T, class F> void each_view(sara::routing_histogram_backward_inputs<T>& of, F f) {
  auto& [logits, sequences, token_weights, token_mass, grad_histograms] = of;
  each_of(f, logits, sequences, token_weights, token_mass, grad_histograms);
}
template <class T, class G, class F> void each_view(sara::routing_histogram_backward_outputs<T, G>& of, F f) {
  auto& [grad_logits] = of;
  each_of(f, grad_logits);
}
template <class W, class I, class F> void each_view(sara::hard_routing_histogram_inputs<W, I>& of, F f) {
  auto& [indices, experts, sequences, token_weights, weights] = of;   // `experts` is a number
  each_of(f, indices, sequences, token_weights, weights);
}
template <class W, class F> void each_view(sara::hard_routing_histogram_outputs<W>& of, F f) {
  auto& [histograms, sums, token_mass, counts] = of;
  each_of(f, histograms, sums, token_mass, counts);
}
template <class W, class I, class F> void each_view(sara::hard_routing_histogram_backward_inputs<W, I>& of, F f) {
  auto& [indices, sequences, token_weights, token_mass, grad_histograms] = of;
  each_of(f, indices, sequences, token_weights, token_mass, grad_histograms);
}
template <class W, class F> void each_view(sara::hard_routing_histogram_backward_outputs<W>& of, F f) {
  auto& [grad_weights] = of;
  each_of(f, grad_weights);
}

template <class T, class F> void each_view(sara::js_divergence_inputs<T>& of, F f) {
  auto& [p, q, grad_divergence] = of;
  each_of(f, p, q, grad_divergence);
}
template <class T, class F> void each_view(sara::js_divergence_outputs<T>& of, F f) {
  auto& [divergence, grad_p, grad_q] = of;
  each_of(f, divergence, grad_p, grad_q);
}

template <class T, class F> void each_view(sara::js_routing_inputs<T>& of, F f) {
  auto& [logits, sequences, anchors, anchor_rows, token_weights, sequence_weights, layer_weights, total_layer_weight, total_sequence_weight,
         upstream, histograms, token_mass] = of;
  each_of(f, logits, sequences, anchors, anchor_rows, token_weights, sequence_weights, layer_weights, total_layer_weight,
          total_sequence_weight, upstream, histograms, token_mass);
}
template <class T, class G, class F> void each_view(sara::js_routing_outputs<T, G>& of, F f) {
  auto& [loss, divergence, histograms, token_mass, grad_logits] = of;
  each_of(f, loss, divergence, histograms, token_mass, grad_logits);
}

// call(inputs, outputs) with the views of such memory. They must have passed the call's own check. What `call` throws passes through, and
// nothing comes back then.
template <class Memory, class Inputs, class Outputs, class Call>
void call_mirrored(Memory& memory, Inputs in, Outputs out, const Call& call) {
  mirror<Memory> there(memory);
  const auto add = [&](const auto& view) { there.add(view); };
  const auto move = [&](auto& view) { view = there.moved(view); };
  each_view(in, add);
  each_view(out, add);
  there.send();
  each_view(in, move);
  each_view(out, move);
  call(in, out);
  there.fetch();
}

}   // namespace oracle
