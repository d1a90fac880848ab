// How a row is cut into vectors, and how rows are written: as they are, added to what is there, or past the caches.
#pragma once

#include <algorithm>

#include "../core/views.hpp"
#include "simd.hpp"

namespace sara {
inline namespace SARA_ABI {

// How a row of `columns` values is cut into vectors: full ones, and a tail that overlaps the last of them.
template <class S> struct row_cut {
  index_t full, tail_at;   // columns in full vectors; first column of the tail's vector
  bool tail;
  typename S::mask fresh;   // the tail's lanes that no full vector has

  SARA_INLINE explicit row_cut(index_t columns) : full(columns / S::lanes * S::lanes), tail_at(columns - S::lanes), tail(full < columns) {
    const auto repeated = static_cast<typename S::scalar>(full - tail_at);
    fresh = reused(S::broadcast(repeated - typename S::scalar(0.5)) < lane_numbers<S>());
  }
  SARA_INLINE index_t columns() const { return tail_at + S::lanes; }
  SARA_INLINE S only_fresh(const S& x) const { return S::from_bits((x.bits() & fresh).v); }
};

// How rows are written: past the caches what is larger than most of them, so that its lines need not be read first. Whoever reads it next
// then waits for memory, as he mostly would in any case.
enum class row_write { overwrite, accumulate, past_caches };

// Whether so many values of G are too large for the caches.
template <class G> bool is_large(index_t values) { return has_stores_past_caches && values * index_t(sizeof(G)) >= index_t(16) << 20; }

// Does a row fill whole lines of 64 bytes?
SARA_INLINE bool fills_lines(const void* row, index_t bytes) {
  return (reinterpret_cast<std::uintptr_t>(row) | static_cast<std::uintptr_t>(bytes)) % 64 == 0;
}

// Rows of `columns` values, `stride` apart, which are part of something large or not. Past the caches go rows that fill whole lines of 64
// bytes, and longer ones that follow on one another and share lines. Of other lines in parts, memory would have to be read after all, and
// that waits for long; and what a shared line costs is too much for short rows, the more of them, the narrower their values.
template <class G> row_write row_write_of(gradient_mode mode, const G* to, index_t stride, index_t columns, bool large) {
  if (mode == gradient_mode::accumulate) return row_write::accumulate;
  constexpr index_t size = sizeof(G), shortest = 768 / (size * size);
  const bool fill = fills_lines(to, stride * size) && fills_lines(to, columns * size);
  const bool share = stride == columns && columns >= shortest && reinterpret_cast<std::uintptr_t>(to) % sizeof(G) == 0;
  return large && (fill || share) ? row_write::past_caches : row_write::overwrite;
}

// Writes rows, one group after the other. A line of 64 bytes that rows share waits here until it is whole, if it goes past the caches;
// what of it no row completes is written as usual.
template <class G> class row_writer {
 public:
  SARA_INLINE explicit row_writer(row_write how) : how_(how) {}
  SARA_INLINE ~row_writer() { finish_line(); }
  row_writer(const row_writer&) = delete;
  row_writer& operator=(const row_writer&) = delete;

  // value(r, e) for all columns e of n rows. It may come from where it is written to, but then not past the caches. `value` holds what it
  // needs by value: it is copied.
  template <class S, int n, class Value> SARA_INLINE void write(G* const (&to)[n], const row_cut<S>& cut, const Value& value) {
    if (how_ == row_write::overwrite) return write_side_by_side(to, cut, std::false_type{}, value);
    if (how_ == row_write::accumulate) return write_side_by_side(to, cut, std::true_type{}, value);
    bool all_fill_lines = true;
    written_out<n>([&](auto r)
                       __attribute__((always_inline)) { all_fill_lines &= fills_lines(to[r], cut.columns() * index_t(sizeof(G))); });
    if (all_fill_lines) {
      for (index_t e = 0; e < cut.full; e += S::lanes)
        written_out<n>([&](auto r) __attribute__((always_inline)) { store_past_caches(to[r] + e, value(r, e)); });
      return;
    }
    const Value held = value;   // what r indexes as the program runs must lie in memory; the others' may stay in registers
    for (int r = 0; r < n; ++r)
      write_lines<S>(
          to[r], cut, [&](index_t e) __attribute__((always_inline)) { return held(r, e); });
  }

 private:
  template <class S, int n, class Adds, class Value>
  SARA_INLINE static void write_side_by_side(G* const (&to)[n], const row_cut<S>& cut, Adds adds, const Value& value) {
    const auto values = [&](index_t e, S(&x)[n]) __attribute__((always_inline)) {
      written_out<n>([&](auto r) __attribute__((always_inline)) { x[r] = adds() ? load<S>(to[r] + e) + value(r, e) : value(r, e); });
    };
    S tail[n] = {};
    if (cut.tail) values(cut.tail_at, tail);
    for (index_t e = 0; e < cut.full; e += S::lanes) {
      S x[n];
      values(e, x);
      written_out<n>([&](auto r) __attribute__((always_inline)) { store(to[r] + e, x[r]); });
    }
    if (cut.tail) written_out<n>([&](auto r) __attribute__((always_inline)) { store(to[r] + cut.tail_at, tail[r]); });
  }

  template <class S, class Value> SARA_INLINE void write_lines(G* to, const row_cut<S>& cut, const Value& value) {
    const index_t columns = cut.columns();
    if (to != next_) {
      finish_line();
      begin_ = end_ = static_cast<index_t>(reinterpret_cast<std::uintptr_t>(to) % 64) / index_t(sizeof(G));
    }
    next_ = to + columns;
    for (index_t e = 0; e < columns;) {
      if (end_ == 0 && columns - e >= per_line) {
        for (const index_t end = e + (columns - e) / per_line * per_line; e < end; e += S::lanes) store_past_caches(to + e, value(e));
      } else {
        const index_t begin = e, end = std::min(columns, begin + per_line - end_);
        for (; e < end; e += S::lanes) {
          const index_t from = std::min(e, cut.tail_at);
          store(line() + (end_ + from - begin), value(from));
        }
        e = end;
        end_ += end - begin;
        if (end_ == per_line) pass_line_on(to + e);
      }
    }
  }

  SARA_INLINE void pass_line_on(G* end) {
    if (begin_ == 0)
      for (int i = 0; i < 16; i += 4)
        store_past_caches(reinterpret_cast<float*>(end - per_line) + i, load<simd<float, 16>>(reinterpret_cast<const float*>(line()) + i));
    else
      std::memcpy(static_cast<void*>(end - (per_line - begin_)), line() + begin_, static_cast<std::size_t>(per_line - begin_) * sizeof(G));
    begin_ = end_ = 0;
  }
  SARA_INLINE void finish_line() {
    if (begin_ < end_)
      std::memcpy(static_cast<void*>(next_ - (end_ - begin_)), line() + begin_, static_cast<std::size_t>(end_ - begin_) * sizeof(G));
  }
  SARA_INLINE G* line() { return reinterpret_cast<G*>(memory_ + 64); }

  static constexpr index_t per_line = 64 / sizeof(G);

  row_write how_;
  G* next_ = nullptr;                       // behind the last row that was written by lines
  index_t begin_ = 0, end_ = 0;             // the line's places that are filled, between rows up to next_[-1]
  alignas(64) unsigned char memory_[192];   // the line, and what vectors write before and behind it
};

}   // namespace SARA_ABI
}   // namespace sara
