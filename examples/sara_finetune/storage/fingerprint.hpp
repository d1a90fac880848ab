// A 64-bit hash of bytes (FNV-1a), the same on every machine and in every version: it is kept in files.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

#include "atomic_file.hpp"

namespace sara_finetune {

inline constexpr std::uint64_t fnv1a_start = 0xcbf29ce484222325u;

// Of several parts: hand the result of one to the next. Every step is one to one in the state, so a single changed byte always shows.
inline std::uint64_t fnv1a(std::string_view bytes, std::uint64_t state = fnv1a_start) {
  for (const char byte : bytes) state = (state ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
  return state;
}

inline std::string hexadecimal(std::uint64_t hash) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  return digits;
}

// Of a model's parameters: 16 digits.
inline std::string fingerprint(std::span<const float> values) { return hexadecimal(fnv1a(bytes_of(values))); }

}   // namespace sara_finetune
