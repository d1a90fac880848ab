// Every executor that this machine can run, and the instruction sets among them.
#pragma once

#include <sara/cpu/executor.hpp>
#include <sara/eigen.hpp>

#include <cstdlib>
#include <string_view>

#include "device.hpp"

namespace oracle {

// visit(executor, name) for the CPU's kernels in each instruction set that runs here.
template <class Visit> void for_each_instruction_set(Visit&& visit, int threads = 1, sara::parallel_for pool = {}) {
  for (const auto isa : {sara::instruction_set::vector128, sara::instruction_set::avx2, sara::instruction_set::avx512})
    if (sara::is_supported(isa)) visit(sara::cpu_executor{.threads = threads, .pool = pool, .isa = isa}, sara::name_of(isa));
}

// The same, and Eigen's.
template <class Visit> void for_each_host_executor(Visit&& visit, int threads = 1, sara::parallel_for pool = {}) {
  for_each_instruction_set(visit, threads, pool);
  visit(sara::eigen_executor{}, "eigen");
}

template <class Visit> void for_the_device(Visit&& visit) {
  if (device_is_there()) visit(device_executor{}, "device");
}

// The same, and the device; SARA_TEST_EXECUTORS=device leaves it alone, where the others need not run again.
template <class Visit> void for_each_executor(Visit&& visit, int threads = 1, sara::parallel_for pool = {}) {
  const char* const which = std::getenv("SARA_TEST_EXECUTORS");
  if (!which || std::string_view(which) != "device") for_each_host_executor(visit, threads, pool);
  for_the_device(visit);
}

}   // namespace oracle
