// Every array of a benchmark begins at a cache line, as the buffers of tensor libraries do: vectors then start alike for all
// contestants. Standard containers allocate through these.
#include <cstdlib>
#include <new>

void* operator new(std::size_t bytes) {
  if (void* const p = std::aligned_alloc(64, (bytes + 63) / 64 * 64 + (bytes == 0 ? 64 : 0))) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
