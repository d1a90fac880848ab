// Scratch memory: what a caller may lend, and the routine that measures and carves it.
#pragma once

#include <cstddef>

#include "types.hpp"

namespace sara {

// Memory that a caller lends to a call. Contents are unspecified on entry and on return; calls that run at the same time need
// one each.
struct workspace {
  void* data = nullptr;
  std::size_t bytes = 0;
};

inline namespace SARA_ABI {

// Cuts a workspace into 64-byte aligned arrays. Without memory it only counts, so that the size a query reports and the
// pointers a call uses come from one routine.
class carver {
 public:
  static constexpr std::size_t alignment = 64;

  carver() = default;   // counts
  explicit carver(const workspace& w) : base_(static_cast<char*>(w.data)) {
    used_ = (alignment - reinterpret_cast<std::uintptr_t>(base_) % alignment) % alignment;
  }

  template <class T> T* take(index_t count) {
    char* const at = base_ ? base_ + used_ : nullptr;
    used_ += (static_cast<std::size_t>(count > 0 ? count : 0) * sizeof(T) + alignment - 1) / alignment * alignment;
    return reinterpret_cast<T*>(at);
  }
  bool carves() const { return base_ != nullptr; }
  // What a workspace must hold, whatever its own alignment.
  std::size_t bytes() const { return used_ + (base_ ? 0 : alignment); }

 private:
  char* base_ = nullptr;
  std::size_t used_ = 0;
};

}   // namespace SARA_ABI
}   // namespace sara
