// What makes a type an executor: it says whether its calls run on the host, and so in which memory views must lie.
#pragma once

#include <concepts>

namespace sara {

template <class E>
concept executor = requires {
  { E::runs_on_host } -> std::convertible_to<bool>;
};

// Calls have run when they return, and views lie in host memory.
template <class E>
concept host_executor = executor<E> && E::runs_on_host;

}   // namespace sara
