// simd<A, bytes>: one vector register of floats or doubles, from the compilers' vector extension. One source gives 128-, 256- and
// 512-bit code: everything here is force-inlined into a kernel that carries the target attribute (cpu/dispatch.hpp).
//
// A vector wider than 16 bytes never crosses a signature bare: its ABI depends on flags. The struct around it may.
#pragma once

#include "../math/exp.hpp"
#include "../math/log.hpp"

namespace sara {
inline namespace SARA_ABI {

template <class A, int bytes> struct simd_vector { typedef A type __attribute__((vector_size(bytes))); };

// The integers of a vector's lanes: their bits, or a comparison's result (all bits of a lane set, or none).
template <class A, int bytes> struct simd_mask {
  typename simd_vector<integer_of<A>, bytes>::type v;

  SARA_INLINE friend simd_mask operator&(const simd_mask& a, const simd_mask& b) { return {a.v & b.v}; }
  SARA_INLINE friend simd_mask operator|(const simd_mask& a, const simd_mask& b) { return {a.v | b.v}; }
  SARA_INLINE friend simd_mask operator!(const simd_mask& a) { return {~a.v}; }
};

template <class A, int bytes> struct simd {
  using scalar = A;
  using vector = typename simd_vector<A, bytes>::type;
  using integers = typename simd_vector<integer_of<A>, bytes>::type;
  using mask = simd_mask<A, bytes>;
  struct word {   // the bits, unsigned: their sums wrap
    typename simd_vector<std::make_unsigned_t<integer_of<A>>, bytes>::type v;
  };
  static constexpr int lanes = bytes / static_cast<int>(sizeof(A));
  // Clang would mask the places first, and gain nothing; fast math would lose the digits that are looked up.
#if defined(__clang__) || defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__)
  static constexpr bool looks_up_16 = false;
#else
  static constexpr bool looks_up_16 = sizeof(A) == 4 && lanes == 16;
#endif

  vector v;

  SARA_INLINE static simd broadcast(A x) { return from_bits(integers{} | __builtin_bit_cast(integer_of<A>, x)); }
  SARA_INLINE static simd from_bits(const integers& bits) { return {__builtin_bit_cast(vector, bits)}; }
  SARA_INLINE static simd from_word(const word& w) { return {__builtin_bit_cast(vector, w.v)}; }
  SARA_INLINE mask bits() const { return {__builtin_bit_cast(integers, v)}; }
  SARA_INLINE word to_word() const { return {__builtin_bit_cast(decltype(word::v), v)}; }

  SARA_INLINE friend simd operator+(const simd& a, const simd& b) { return {a.v + b.v}; }
  SARA_INLINE friend simd operator-(const simd& a, const simd& b) { return {a.v - b.v}; }
  SARA_INLINE friend simd operator*(const simd& a, const simd& b) { return {a.v * b.v}; }
  SARA_INLINE friend simd operator/(const simd& a, const simd& b) { return {a.v / b.v}; }
  SARA_INLINE friend simd operator-(const simd& a) { return {-a.v}; }
  SARA_INLINE friend simd operator+(const simd& a, A b) { return {a.v + b}; }
  SARA_INLINE friend simd operator-(const simd& a, A b) { return {a.v - b}; }
  SARA_INLINE friend simd operator*(const simd& a, A b) { return {a.v * b}; }
  SARA_INLINE friend mask operator<(const simd& a, const simd& b) { return {a.v < b.v}; }
  SARA_INLINE friend mask operator<(const simd& a, A b) { return {a.v < b}; }
  SARA_INLINE friend mask operator>(const simd& a, A b) { return {a.v > b}; }
  SARA_INLINE friend mask operator==(const simd& a, const simd& b) { return {a.v == b.v}; }

  // a * b + c in one expression, so that compilers fuse it where the machine can.
  SARA_INLINE friend simd mul_add(const simd& a, const simd& b, const simd& c) { return {a.v * b.v + c.v}; }
  // The larger; where one is NaN, the second.
  SARA_INLINE friend simd max(const simd& a, const simd& b) { return {a.v > b.v ? a.v : b.v}; }
  // The smaller of a number and a positive limit; a NaN stays one, or becomes the limit. Positive numbers are in the order of their
  // bits, and integers keep other units busy than the floating-point ones (128-bit code may lack the instruction).
  SARA_INLINE friend simd at_most(const simd& x, A limit) {
    const simd most = broadcast(limit);
    if constexpr (sizeof(A) == 4 && bytes > 16) {
      const integers a = x.bits().v, b = most.bits().v;
      return from_bits(a < b ? a : b);
    } else {
      return {x.v < most.v ? x.v : most.v};
    }
  }
  // Of 16 numbers those in the places that the low four bits of `at` name: one instruction, of vectors for which looks_up_16.
  template <class X> SARA_INLINE friend simd looked_up(const X (&numbers)[16], const simd& at) {
    simd table;
    std::memcpy(&table.v, numbers, sizeof table.v);
    return {__builtin_shuffle(table.v, at.bits().v)};
  }
  SARA_INLINE friend simd select(const mask& m, const simd& yes, const simd& no) {
    if constexpr (bytes == 64 && sizeof(A) == 8) return from_bits((yes.bits().v & m.v) | (no.bits().v & ~m.v));   // of reused()
    return {m.v ? yes.v : no.v};
  }
};

// A comparison's result that is used more than once. Of 8 doubles GCC 12 would work it lane by lane at each use, as the function that
// compares has no AVX-512 before it is inlined; made bits of here, it is compared once, and `select` takes bits. Of 16 floats, whose one
// such use is row_cut's, it makes no such code. Not behind nvcc, whose emulated twin in the tests does not inline by force.
template <class A, int bytes> SARA_INLINE simd_mask<A, bytes> reused(const simd_mask<A, bytes>& m) {
  typename simd_vector<integer_of<A>, bytes>::type v = m.v;
#if defined(__x86_64__) && !defined(__clang__) && !defined(__CUDACC__)
  if constexpr (bytes == 64 && sizeof(A) == 8) asm("" : "+v"(v));
#endif
  return {v};
}

// What the optimiser must not reassociate across, even under -ffast-math: the sum of a rounding, the parts of ln 2.
template <class A, int bytes> SARA_INLINE simd<A, bytes> keep(const simd<A, bytes>& sum) {
  simd<A, bytes> x = sum;
#if defined(__clang__) && defined(__x86_64__) && !defined(__CUDACC__)   // which names only the whole of -ffast-math
  x.v = __arithmetic_fence(x.v);
#elif defined(__ASSOCIATIVE_MATH__) && !defined(__clang__) && !defined(__CUDACC__)
  x.v = __builtin_assoc_barrier(x.v);
#endif
  return x;
}

// What math/js.hpp asks of its scalar.
template <int bytes> SARA_INLINE simd<double, bytes> log(const simd<double, bytes>& x) { return math::log_positive(x); }
template <int bytes> SARA_INLINE simd<double, bytes> log1p(const simd<double, bytes>& x) { return math::log1p_near(x); }
template <int bytes> SARA_INLINE simd<double, bytes> atanh(const simd<double, bytes>& x) { return math::atanh_near(x); }

template <class S> SARA_INLINE typename S::mask every_lane() { return S::broadcast(-1) < S::broadcast(0); }

// The halves of a vector or of a mask.
template <template <class, int> class V, class A, int bytes>
SARA_INLINE void split(const V<A, bytes>& x, V<A, bytes / 2>& low, V<A, bytes / 2>& high) {
  std::memcpy(&low.v, &x.v, bytes / 2);
  std::memcpy(&high.v, reinterpret_cast<const char*>(&x.v) + bytes / 2, bytes / 2);
}

// Lanes joined by join(low, high) of halves until so many are left: one fixed order.
template <int left, template <class, int> class V, class A, int bytes, class Join>
SARA_INLINE auto over_lanes(const V<A, bytes>& x, const Join& join) {
  if constexpr (bytes == left * static_cast<int>(sizeof(A))) {
    return x;
  } else {
    V<A, bytes / 2> low, high;
    split(x, low, high);
    return over_lanes<left>(join(low, high), join);
  }
}

// The largest of the lanes; or of every `left`-th, a vector of so many.
template <int left = 1, class S> SARA_INLINE auto max_of_lanes(const S& x) {
  return over_lanes<left>(
      x, [](const auto& a, const auto& b) __attribute__((always_inline)) { return max(a, b); });
}
// Is a comparison's result true in some lane?
template <class A, int bytes> SARA_INLINE bool any(const simd_mask<A, bytes>& m) {
  const auto either = [](const auto& a, const auto& b) __attribute__((always_inline)) { return a | b; };
  return over_lanes<1>(m, either).v[0] != 0;
}

// A vector whose lane i is lane from(i) of two: those of the second count on from those of the first. V holds its lanes in `v`.
template <class V, class From, int... lane> SARA_INLINE V shuffled(const V& a, const V& b, From from, std::integer_sequence<int, lane...>) {
#if defined(__clang__) && defined(__CUDACC__)   // nvcc cannot read a pack in __builtin_shufflevector
  V r = a;
  ((r.v[lane] = from(lane) < V::lanes ? a.v[from(lane) % V::lanes] : b.v[from(lane) % V::lanes]), ...);
  return r;
#elif defined(__clang__)
  return {__builtin_shufflevector(a.v, b.v, from(lane)...)};
#else
  return {__builtin_shuffle(a.v, b.v, typename V::integers{from(lane)...})};
#endif
}
template <class V, class From> SARA_INLINE V shuffled(const V& a, const V& b, From from) {
  return shuffled(a, b, from, std::make_integer_sequence<int, V::lanes>{});
}

// The sums over the lanes of four vectors: of each four lanes the first and third plus the second and fourth; the fours by halves. And of
// each vector, where `largest` is given, the largest sum of two such lanes (the largest lane, where there are fewer than four).
template <class A, int bytes, class R = simd<A, 4 * sizeof(A)>>
SARA_INLINE simd<A, 4 * sizeof(A)> sums_of_lanes(const simd<A, bytes> (&x)[4], R&& largest = R()) {
  using S = simd<A, bytes>;
  const auto add = [](const auto& a, const auto& b) __attribute__((always_inline)) { return a + b; };
  if constexpr (S::lanes < 4) {
    simd<A, 4 * sizeof(A)> sums;
    for (int i = 0; i < 4; ++i) sums.v[i] = over_lanes<1>(x[i], add).v[0], largest.v[i] = max_of_lanes(x[i]).v[0];
    return sums;
  } else {   // by turns a lane of one vector and a lane of the other: the first two of each four, the last two
    const auto first = [](int lane) { return lane / 4 * 4 + lane % 4 / 2 + lane % 2 * S::lanes; };
    const auto last = [=](int lane) { return first(lane) + 2; };
    const S even = shuffled(x[0], x[2], first) + shuffled(x[0], x[2], last);
    const S odd = shuffled(x[1], x[3], first) + shuffled(x[1], x[3], last);
    const S one = shuffled(even, odd, first), other = shuffled(even, odd, last);
    largest = max_of_lanes<4>(max(one, other));
    return over_lanes<4>(one + other, add);
  }
}
template <class S> SARA_INLINE auto sum_of_lanes(const S& x) { return sums_of_lanes({x, x, x, x}).v[0]; }

// `lanes` values from storage, in arithmetic; 16-bit formats by integer operations, denormals and NaN included.
template <class S, class T> SARA_INLINE S load(const T* from) {
  constexpr int lanes = S::lanes;
  S x;
  if constexpr (std::is_same_v<typename S::scalar, T>) {
    std::memcpy(&x.v, from, sizeof x.v);
  } else if constexpr (std::is_same_v<typename S::scalar, double>) {
    const simd<float, lanes* 4> narrow = load<simd<float, lanes * 4>>(from);
    x.v = __builtin_convertvector(narrow.v, typename S::vector);
  } else {
    static_assert(storage_trait<T>::format != storage_format::native);
    using words = typename simd_vector<std::uint32_t, lanes * 4>::type;
    typename simd_vector<std::uint16_t, lanes * 2>::type halves;
    std::memcpy(&halves, static_cast<const void*>(from), sizeof halves);
    const words w = __builtin_convertvector(halves, words);
    if constexpr (storage_trait<T>::format == storage_format::bf16) {
      x.v = __builtin_bit_cast(typename S::vector, w << 16);
    } else {
      const words magnitude = (w & 0x7fffu) << 13, exponent = magnitude & 0x0f800000u;
      const words normal = magnitude + (112u << 23);
      const words special = normal + (112u << 23);   // infinity, NaN
      const S denormal = S::from_bits(__builtin_bit_cast(typename S::integers, normal + (1u << 23))) - 6.103515625e-05f;
      words r = exponent == 0x0f800000u ? special : normal;
      r = exponent == 0u ? __builtin_bit_cast(words, denormal.v) : r;
      x.v = __builtin_bit_cast(typename S::vector, r | ((w & 0x8000u) << 16));
    }
  }
  return x;
}

// A load for more uses than one. Where an instruction can take its operand from memory, GCC would load for each of them anew.
template <class S, class T> SARA_INLINE S load_once(const T* from) {
  typename S::vector v = load<S>(from).v;
#if defined(__x86_64__) && !defined(__clang__) && !defined(__CUDACC__)
  if constexpr (sizeof v >= 16) asm("" : "+v"(v));
#endif
  return {v};
}

// 0, 1, 2, ...
template <class S> SARA_INLINE S lane_numbers() {
  typename S::scalar numbers[S::lanes];
  for (int i = 0; i < S::lanes; ++i) numbers[i] = static_cast<typename S::scalar>(i);
  return load<S>(numbers);
}

// `lanes` values to storage, rounded to nearest, ties to even.
template <class S, class T> SARA_INLINE void store(T* to, const S& x) {
  constexpr int lanes = S::lanes;
  if constexpr (std::is_same_v<typename S::scalar, T>) {
    std::memcpy(to, &x.v, sizeof x.v);
  } else if constexpr (std::is_same_v<typename S::scalar, double>) {
    using narrow = simd<float, lanes * 4>;
    store(to, narrow{__builtin_convertvector(x.v, typename narrow::vector)});
  } else {
    static_assert(storage_trait<T>::format != storage_format::native);
    using words = typename simd_vector<std::uint32_t, lanes * 4>::type;
    using half_words = typename simd_vector<std::uint16_t, lanes * 2>::type;
    const words u = __builtin_bit_cast(words, x.v), a = u & 0x7fffffffu;
    words h;
    if constexpr (storage_trait<T>::format == storage_format::bf16) {
      h = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
      h = a > 0x7f800000u ? (u >> 16) | 0x40u : h;
    } else {
      // Below 2^-14 the addition of 0.5 leaves the rounded denormal in the low bits.
      const S half = S::from_bits(__builtin_bit_cast(typename S::integers, a)) + 0.5f;
      const words denormal = __builtin_bit_cast(words, half.v) - 0x3f000000u;
      const words normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
      h = a < 0x38800000u ? denormal : normal;
      h = a >= 0x477ff000u ? words{} + 0x7c00u : h;
      h = a > 0x7f800000u ? ((a >> 13) & 0x3ffu) | 0x7e00u : h;
      h |= (u >> 16) & 0x8000u;
    }
    const half_words halves = __builtin_convertvector(h, half_words);
    std::memcpy(static_cast<void*>(to), &halves, sizeof halves);
  }
}

// The same past the caches, whose lines then need not be read first; `to` is a multiple of as many bytes. Another thread sees it after
// finish_past_caches().
template <class S, class T> SARA_INLINE void store_past_caches(T* to, const S& x) {
#if defined(__x86_64__) && !defined(__CUDACC__)
  constexpr int bytes = S::lanes * static_cast<int>(sizeof(T));
  if constexpr (bytes >= 16) {
    typedef typename simd_vector<float, bytes>::type __attribute__((may_alias)) packed;
    packed values;
    store(reinterpret_cast<T*>(&values), x);
#if defined(__clang__)
    __builtin_nontemporal_store(values, reinterpret_cast<packed*>(to));
#else   // GCC knows its builtins of wider vectors only in functions that have them
    if constexpr (bytes == 16) __builtin_ia32_movntps(reinterpret_cast<float*>(to), values);
    if constexpr (bytes > 16) asm volatile("vmovntps %1, %0" : "=m"(*reinterpret_cast<packed*>(to)) : "v"(values));
#endif
    return;
  }
#endif
  store(to, x);
}
#if defined(__x86_64__)
inline constexpr bool has_stores_past_caches = true;
inline void finish_past_caches() { __builtin_ia32_sfence(); }
#else
inline constexpr bool has_stores_past_caches = false;
inline void finish_past_caches() {}
#endif

}   // namespace SARA_ABI
}   // namespace sara
