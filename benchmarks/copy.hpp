// The machine's own copy: the bandwidth that every memory-bound figure is held against, at the same footprint and number of
// threads, in the same run. `ordinary` reads what it writes to (a cache line is fetched before it is overwritten), `streaming`
// stores past the caches.
#pragma once

#include <sara/cpu/instruction_set.hpp>
#include <sara/cpu/threads.hpp>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

namespace benchmarks {

enum class copy_kind { ordinary, streaming };

// Bytes are a multiple of 64, both ends 64-byte aligned.
#if defined(__x86_64__)
[[gnu::target("avx512f"), gnu::noinline]] inline void copy_avx512(char* to, const char* from, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += 64) _mm512_store_si512(to + i, _mm512_load_si512(from + i));
}
[[gnu::target("avx512f"), gnu::noinline]] inline void stream_avx512(char* to, const char* from, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += 64) _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_load_si512(from + i));
  _mm_sfence();
}
[[gnu::target("avx2"), gnu::noinline]] inline void copy_avx2(char* to, const char* from, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += 32)
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + i), _mm256_load_si256(reinterpret_cast<const __m256i*>(from + i)));
}
[[gnu::target("avx2"), gnu::noinline]] inline void stream_avx2(char* to, const char* from, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += 32)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), _mm256_load_si256(reinterpret_cast<const __m256i*>(from + i)));
  _mm_sfence();
}
[[gnu::noinline]] inline void stream_sse2(char* to, const char* from, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += 16)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), _mm_load_si128(reinterpret_cast<const __m128i*>(from + i)));
  _mm_sfence();
}

inline void copy(copy_kind kind, char* to, const char* from, std::size_t bytes) {
  const bool streaming = kind == copy_kind::streaming;
  if (sara::is_supported(sara::instruction_set::avx512)) return streaming ? stream_avx512(to, from, bytes) : copy_avx512(to, from, bytes);
  if (sara::is_supported(sara::instruction_set::avx2)) return streaming ? stream_avx2(to, from, bytes) : copy_avx2(to, from, bytes);
  if (streaming) return stream_sse2(to, from, bytes);
  std::memcpy(to, from, bytes);
}
#else
inline void copy(copy_kind, char* to, const char* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
#endif

// The threads of every two-thread benchmark.
inline sara::thread_pool& two_threads() {
  static sara::thread_pool pool(2);
  return pool;
}

// `bytes` are those moved: half of them read, half written.
class copy_buffers {
 public:
  explicit copy_buffers(std::size_t bytes)
      : half_(std::max<std::size_t>(bytes / 2 / 128, 1) * 128), data_(static_cast<char*>(::operator new(2 * half_, std::align_val_t(64)))) {
    std::mt19937_64 bits(half_);
    std::vector<std::uint64_t> random(8192);
    for (std::uint64_t& each : random) each = bits();
    for (std::size_t i = 0; i < 2 * half_; i += 65536)
      std::memcpy(data_.get() + i, random.data(), std::min<std::size_t>(65536, 2 * half_ - i));
  }
  std::size_t bytes() const { return 2 * half_; }

  void run(copy_kind kind, int threads) const {
    char* const to = data_.get() + half_;
    if (threads == 1) return copy(kind, to, data_.get(), half_);
    auto task = [&](int worker) {
      const std::size_t begin = worker ? half_ / 2 : 0;
      copy(kind, to + begin, data_.get() + begin, half_ / 2);
    };
    two_threads()(2, sara::worker_task(task));
  }

 private:
  struct release {
    void operator()(char* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  std::size_t half_;
  std::unique_ptr<char, release> data_;
};

// Bytes a second of the quicker kind, median of at least 9 copies of each. Measured anew each time: what other machines' work leaves of
// caches and memory changes from second to second. The buffers stay for the next call, which mostly is of as many bytes.
inline double copy_bandwidth(std::size_t bytes, int threads) {
  static std::size_t last = 0;
  static std::unique_ptr<const copy_buffers> kept;
  if (bytes != last || !kept) {
    kept.reset();
    kept = std::make_unique<const copy_buffers>(bytes);
    last = bytes;
  }
  const copy_buffers& buffers = *kept;
  double best = 0;
  for (const copy_kind kind : {copy_kind::ordinary, copy_kind::streaming}) {
    buffers.run(kind, threads);
    std::vector<double> seconds;
    for (double total = 0; seconds.size() < 9 || (total < 0.01 && seconds.size() < 10000); total += seconds.back()) {
      const auto begin = std::chrono::steady_clock::now();
      buffers.run(kind, threads);
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    std::nth_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2), seconds.end());
    best = std::max(best, static_cast<double>(buffers.bytes()) / seconds[seconds.size() / 2]);
  }
  return best;
}

}   // namespace benchmarks
