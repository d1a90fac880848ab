// The threads of a block as fibers: contexts with stacks of their own, one of which runs, kept for all blocks to come. The sanitizers are
// told of every switch.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#define EMULATED_CUDA_ASAN 1
#elif defined(__has_feature)
#define EMULATED_CUDA_ASAN __has_feature(address_sanitizer)
#else
#define EMULATED_CUDA_ASAN 0
#endif
#if EMULATED_CUDA_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

// There only in programs built with the thread sanitizer; the emulated device itself is built without.
extern "C" {
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned flags);
[[gnu::weak]] void __tsan_switch_to_fiber(void* fiber, unsigned flags);
[[gnu::weak]] void __tsan_acquire(void* what);
[[gnu::weak]] void __tsan_release(void* what);
}

uint3 threadIdx;   // of the fiber that runs

namespace emulated_cuda {
namespace {

[[noreturn, gnu::format(printf, 1, 2)]] void stop(const char* format, ...) {
  std::fputs("emulated CUDA device: ", stderr);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
  std::abort();
}

// What a thread writes before a release of `what`, a thread sees after its acquire: for the thread sanitizer, to which a switch says nothing.
void acquire(char& what) {
  if (__tsan_acquire) __tsan_acquire(&what);
}
void release(char& what) {
  if (__tsan_release) __tsan_release(&what);
}

constexpr int most_threads = 1024, host = most_threads;   // `host` is the context that launches

struct fiber {
  uint3 index;   // threadIdx
  void* stack_pointer = nullptr;
  const void* bottom = nullptr;   // of the stack
  std::size_t bytes = 0;
  void *asan_stack = nullptr, *tsan_fiber = nullptr;
#if !defined(__x86_64__)
  ucontext_t context;
#endif
};
fiber fibers[most_threads + 1];
int self = host, previous = host;   // who runs, who ran before

#if defined(__x86_64__)
extern "C" void emulated_cuda_switch(void** save, void* load);
asm(R"(
.pushsection .text
.type emulated_cuda_switch, @function
emulated_cuda_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulated_cuda_switch, .-emulated_cuda_switch
.popsection
)");
#endif

void has_switched() {
#if EMULATED_CUDA_ASAN
  __sanitizer_finish_switch_fiber(fibers[self].asan_stack, &fibers[previous].bottom, &fibers[previous].bytes);
#endif
}

void switch_to(int next) {
  fiber &from = fibers[self], &to = fibers[next];
  previous = self;
  self = next;
  threadIdx = to.index;
#if EMULATED_CUDA_ASAN
  __sanitizer_start_switch_fiber(&from.asan_stack, to.bottom, to.bytes);
#endif
  if (__tsan_switch_to_fiber) {
    if (previous == host) from.tsan_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to.tsan_fiber, 1);   // 1: which orders nothing
  }
#if defined(__x86_64__)
  emulated_cuda_switch(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
  has_switched();
}

// Gives fiber t a stack, if it has none yet. Its first switch enters `run`, which must begin with has_switched() and never return.
void ready(int t, void (*run)()) {
  constexpr std::size_t stack_bytes = 256 * 1024, page = 4096;   // memory is spent on pages that were touched
  fiber& f = fibers[t];
  if (f.bottom) return;
  void* memory = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) stop("there is no memory for the threads' stacks");
  f.bottom = static_cast<char*>(memory) + page;
  // Tops at 32 different distances from a page's end: else those of a warp share few lines of the cache.
  f.bytes = stack_bytes - page - static_cast<std::size_t>(t % 32 * 128);
  if (__tsan_create_fiber) f.tsan_fiber = __tsan_create_fiber(0);
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(static_cast<char*>(memory) + page + f.bytes);
  top[-1] = nullptr;   // where `run` would return to
  top[-2] = reinterpret_cast<void*>(run);
  f.stack_pointer = top - 8;   // six registers below
#else
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = static_cast<char*>(memory) + page;
  f.context.uc_stack.ss_size = f.bytes;
  makecontext(&f.context, run, 0);
#endif
}

}   // namespace
}   // namespace emulated_cuda
