// Every executor that this machine can run, and the instruction sets among them.
#pragma once

#include <sara/cpu/executor.hpp>
#include <sara/eigen.hpp>

namespace oracle {

// visit(executor, name) for the CPU's kernels in each instruction set that runs here.
template <class Visit> void for_each_instruction_set(Visit&& visit, int threads = 1, sara::parallel_for pool = {}) {
  for (const auto isa : {sara::instruction_set::vector128, sara::instruction_set::avx2, sara::instruction_set::avx512})
    if (sara::is_supported(isa)) visit(sara::cpu_executor{.threads = threads, .pool = pool, .isa = isa}, sara::name_of(isa));
}

// The same, and Eigen's.
template <class Visit> void for_each_executor(Visit&& visit, int threads = 1, sara::parallel_for pool = {}) {
  for_each_instruction_set(visit, threads, pool);
  visit(sara::eigen_executor{}, "eigen");
}

}   // namespace oracle
