// Which tokens belong to which sequence: the three layouts of token batches.
#pragma once

#include <algorithm>

#include "views.hpp"

namespace sara {

enum class token_layout { packed, uniform, interleaved };

// | factory                      | sequence s holds the token rows           | used by                           |
// |------------------------------|-------------------------------------------|-----------------------------------|
// | packed(cu_seqlens [B + 1])   | cu_seqlens[s] .. cu_seqlens[s + 1] - 1    | varlen attention, packed batches  |
// | uniform(batch, length)       | s * length .. s * length + length - 1     | [batch, length, experts]          |
// | interleaved(length, batch)   | s, s + batch, s + 2 batch, ...            | Megatron's [length, batch, experts] |
//
// Packed offsets are int32 or int64 and live where the executor runs. Empty sequences are legal; rows outside the offsets belong
// to no sequence. Offsets are clamped to [0, tokens]; one that falls back counts as the largest before it (a checked build
// throws). `longest` is an optional hint for GPUs: no sequence has more tokens.
class sequences_view {
 public:
  constexpr sequences_view() = default;

  SARA_INLINE static constexpr sequences_view packed(integers_view cu_seqlens, index_t longest = 0) {
    sequences_view v = regular(token_layout::packed, cu_seqlens.size() - 1, longest);
    v.offsets_ = cu_seqlens;
    return v;
  }
  template <std::integral B, std::integral L> SARA_INLINE static constexpr sequences_view uniform(B batch, L length) {
    return regular(token_layout::uniform, static_cast<index_t>(batch), static_cast<index_t>(length));
  }
  template <std::integral L, std::integral B> SARA_INLINE static constexpr sequences_view interleaved(L length, B batch) {
    return regular(token_layout::interleaved, static_cast<index_t>(batch), static_cast<index_t>(length));
  }

  SARA_INLINE constexpr token_layout layout() const { return layout_; }
  SARA_INLINE constexpr index_t sequences() const { return sequences_; }
  SARA_INLINE constexpr index_t length() const { return length_; }   // of each sequence; packed: the hint, 0 if there is none
  SARA_INLINE constexpr const integers_view& offsets() const { return offsets_; }   // packed only
  SARA_INLINE constexpr bool given() const { return given_; }

 private:
  SARA_INLINE static constexpr sequences_view regular(token_layout layout, index_t batch, index_t length) {
    sequences_view v;
    v.layout_ = layout;
    v.sequences_ = batch;
    v.length_ = length;
    v.given_ = true;
    return v;
  }

  token_layout layout_ = token_layout::packed;
  bool given_ = false;
  index_t sequences_ = 0, length_ = 0;
  integers_view offsets_;
};

// The token rows of one sequence: first, first + step, ... (count of them).
struct token_range {
  index_t first = 0, step = 1, count = 0;
};

inline namespace SARA_ABI {

// The rows of sequence s of a regular layout, or of a packed one whose (clamped) offsets are `begin` and `end`.
SARA_INLINE constexpr token_range token_rows(const sequences_view& v, index_t s, index_t begin = 0, index_t end = 0) {
  if (v.layout() == token_layout::uniform) return {s * v.length(), 1, v.length()};
  if (v.layout() == token_layout::interleaved) return {s, v.sequences(), v.length()};
  return {begin, 1, end - begin};
}

// Calls visit(s, rows) for every sequence in order; reads packed offsets on the host.
template <class Visit> inline void for_each_sequence(const sequences_view& v, index_t tokens, Visit&& visit) {
  index_t begin = 0;
  if (v.layout() == token_layout::packed && v.sequences() > 0) begin = std::clamp<index_t>(v.offsets()[0], 0, tokens);
  for (index_t s = 0; s < v.sequences(); ++s) {
    index_t end = begin;
    if (v.layout() == token_layout::packed) end = std::max(begin, std::clamp<index_t>(v.offsets()[s + 1], 0, tokens));
    visit(s, token_rows(v, s, begin, end));
    begin = end;
  }
}

}   // namespace SARA_ABI
}   // namespace sara
