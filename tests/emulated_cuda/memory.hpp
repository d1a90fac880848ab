// The device's memory: allocations of exactly the size that was asked for, filled with 0xff, between bytes that nobody may touch.
#pragma once

#include <map>

#include "fibers.hpp"

#if EMULATED_CUDA_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(begin, bytes) static_cast<void>(0)
#define ASAN_UNPOISON_MEMORY_REGION(begin, bytes) static_cast<void>(0)
#endif

namespace emulated_cuda {
namespace {

constexpr std::size_t guard_bytes = 256, device_bytes = std::size_t{80} << 30;   // in front, guards keep CUDA's alignment too
constexpr unsigned char guard = 0xa5;

struct allocation {
  std::size_t bytes;
  int device;
  bool of_graph;
};
auto& allocations = *new std::map<const char*, allocation>;   // to the program's end, which need not have freed everything

char* allocate(std::size_t bytes, int device, bool of_graph = false) {
  void* raw = nullptr;
  if (bytes > device_bytes || posix_memalign(&raw, guard_bytes, guard_bytes + bytes + guard_bytes) != 0) return nullptr;
  char* memory = static_cast<char*>(raw) + guard_bytes;
  std::memset(raw, guard, guard_bytes);
  std::memset(memory, 0xff, bytes);
  std::memset(memory + bytes, guard, guard_bytes);
  ASAN_POISON_MEMORY_REGION(raw, guard_bytes);
  ASAN_POISON_MEMORY_REGION(memory + bytes, guard_bytes);
  allocations[memory] = {bytes, device, of_graph};
  return memory;
}

void check_guards([[maybe_unused]] const char* memory, [[maybe_unused]] std::size_t bytes) {
#if !EMULATED_CUDA_ASAN
  for (std::size_t i = 0; i < guard_bytes; ++i) {
    if (static_cast<unsigned char>(memory[bytes + i]) != guard)
      stop("byte %zu of an allocation of %zu bytes was written to", bytes + i, bytes);
    if (static_cast<unsigned char>(*(memory - 1 - i)) != guard)
      stop("byte -%zu of an allocation of %zu bytes was written to", i + 1, bytes);
  }
#endif
}

void deallocate(const void* pointer) {
  const auto it = allocations.find(static_cast<const char*>(pointer));
  const std::size_t bytes = it->second.bytes;
  char* raw = const_cast<char*>(it->first) - guard_bytes;
  check_guards(it->first, bytes);
  ASAN_UNPOISON_MEMORY_REGION(raw, guard_bytes + bytes + guard_bytes);
  allocations.erase(it);
  std::free(raw);
}

// The allocation that a pointer points into.
const std::pair<const char* const, allocation>* find(const void* pointer) {
  auto it = allocations.upper_bound(static_cast<const char*>(pointer));
  if (it == allocations.begin()) return nullptr;
  --it;
  return static_cast<const char*>(pointer) < it->first + it->second.bytes ? &*it : nullptr;
}
bool fits(const void* pointer, std::size_t bytes) {   // host memory always does
  const auto* a = find(pointer);
  return !a || static_cast<const char*>(pointer) + bytes <= a->first + a->second.bytes;
}

}   // namespace

void check_guard_bytes() {
  for (const auto& [memory, a] : allocations) check_guards(memory, a.bytes);
}
std::size_t live_allocations() { return allocations.size(); }

}   // namespace emulated_cuda
