// A test of the tests: what device_executor does with a call's memory, with a CPU's call in the device's place.
#include "../oracle/device/mirror.hpp"

#include <cstdlib>
#include <map>

#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

// Memory of the host in the place of the device's; it knows what it gave.
class pretended_memory {
 public:
  ~pretended_memory() { CHECK(taken_.empty()); }
  void* take(std::size_t bytes) {
    char* const p = static_cast<char*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
    taken_[p] = bytes;
    ++islands;
    return p;
  }
  void give_back(void* p) {
    CHECK(taken_.erase(static_cast<char*>(p)) == 1);
    std::free(p);
  }
  void copy_there(void* to, const void* from, std::size_t bytes) { copy(to, from, bytes, holds(to) && ends_at(to, bytes)); }
  void copy_here(void* to, const void* from, std::size_t bytes) { copy(to, from, bytes, holds(from) && ends_at(from, bytes)); }

  void wait() {}

  bool holds(const void* p) const {
    const auto after = taken_.upper_bound(static_cast<char*>(const_cast<void*>(p)));
    return after != taken_.begin() && p < std::prev(after)->first + std::prev(after)->second;
  }

  int islands = 0;

 private:
  bool ends_at(const void* p, std::size_t bytes) const {
    const auto before = std::prev(taken_.upper_bound(static_cast<char*>(const_cast<void*>(p))));
    return static_cast<const char*>(p) + bytes == before->first + before->second;
  }
  static void copy(void* to, const void* from, std::size_t bytes, bool right) {
    CHECK(right);
    std::memcpy(to, from, bytes);
  }

  std::map<char*, std::size_t> taken_;
};

// Does every element that a view tells of lie in `memory`?
template <class T> bool lies_in(const pretended_memory& memory, const sara::matrix_view<T>& m) {
  return m.rows() * m.columns() == 0 || (memory.holds(m.data()) && memory.holds(&m(m.rows() - 1, m.columns() - 1)));
}
template <class T> bool lies_in(const pretended_memory& memory, const sara::vector_view<T>& v) {
  return lies_in(memory, sara::matrix_view<T>{v.data(), 1, v.size()});
}
template <class T> bool lies_in(const pretended_memory& memory, const sara::layers_view<T>& v) {
  for (sara::index_t l = 0; l < v.layers(); ++l)
    if (!lies_in(memory, v[l])) return false;
  return true;
}
bool lies_in(const pretended_memory& memory, const sara::integers_view& v) { return v.size() == 0 || memory.holds(v.data()); }
bool lies_in(const pretended_memory& memory, const sara::sequences_view& v) { return lies_in(memory, v.offsets()); }

using inputs = sara::js_divergence_inputs<float>;
using outputs = sara::js_divergence_outputs<float>;

}   // namespace

TEST_CASE("a mirrored call reads and writes the mirror alone, and gives the same bits", "[mirror]") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    const auto in = oracle::rounded_to<float>(oracle::random_problem(seed, 3000));
    oracle::source from(seed);
    const auto place = [&] {
      return oracle::placement{.list = from.chance(0.3),
                               .row_padding = static_cast<sara::index_t>(from.below(4)),
                               .layer_padding = static_cast<sara::index_t>(from.below(7)),
                               .offset = static_cast<sara::index_t>(from.below(4))};
    };
    const oracle::posing how{.logits = place(), .others = place(), .grad = place()};
    const bool in_place = seed % 3 == 0;
    oracle::arguments<float> given(in, how), given_there(in, how);
    oracle::answers<float> want(in, how), got(in, how);
    const auto wanted = [&](oracle::arguments<float>& arguments, oracle::answers<float>& answers) {
      auto out = answers.outputs();
      if (in_place) out.grad_logits = arguments.logits.view();
      if (seed % 5 == 0) out.divergence = {};
      return out;
    };
    sara::js_routing_into(sara::cpu_executor{.threads = 1}, given.inputs(), wanted(given, want), {.scale = in.scale});
    pretended_memory memory;
    oracle::call_mirrored(memory, given_there.inputs(), wanted(given_there, got), [&](auto in_there, auto out_there) {
      const auto check = [&](const auto& view) { CHECK(lies_in(memory, view)); };
      oracle::each_view(in_there, check);
      oracle::each_view(out_there, check);
      sara::js_routing_into(sara::cpu_executor{.threads = 1}, in_there, out_there, {.scale = in.scale});
    });
    CHECK(got.same_bits_as(want));
    CHECK(oracle::same_bits(given_there.logits.memory(), given.logits.memory()));
  }
}

TEST_CASE("what lies side by side does so in the mirror, as far from a multiple of 256; what only touches lies apart", "[mirror]") {
  std::vector<float> buffer(3 * 16 + 7), row(20);
  pretended_memory memory;
  const inputs in{.p = sara::matrix_view<const float>{buffer.data() + 1, 3, 5, 16},
                  .q = sara::matrix_view<const float>{buffer.data() + 6, 3, 5, 16},
                  .grad_divergence = sara::vector_view<const float>{row.data(), 3}};
  const outputs out{.divergence = sara::vector_view{row.data() + 3, 3}, .grad_p = sara::matrix_view{buffer.data() + 11, 3, 5, 16}};
  oracle::call_mirrored(memory, in, out, [&](const inputs& in_there, const outputs& out_there) {
    CHECK(memory.islands == 3);
    CHECK(in_there.q.data() - in_there.p.data() == 5);
    CHECK(out_there.grad_p.data() - in_there.p.data() == 10);
    CHECK(in_there.p.row_stride() == 16);
    CHECK((lies_in(memory, in_there.q) && lies_in(memory, out_there.grad_p)));
    CHECK_FALSE(out_there.grad_q.given());
    const auto address = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 256; };
    CHECK(address(in_there.p.data()) == address(in.p.data()));
    CHECK(address(out_there.divergence.data()) == address(out.divergence.data()));
    std::fill(out_there.divergence.data(), out_there.divergence.data() + 3, 7.0f);
    out_there.grad_p.data()[5] = 8;   // beyond the columns
  });
  CHECK(row[2] == 0);
  CHECK(row[3] == 7);
  CHECK(row[6] == 0);
  CHECK(buffer[11 + 5] == 8);   // a test sees it
}

TEST_CASE("views of no elements, null or not, stay as they are", "[mirror]") {
  float one = 1;
  pretended_memory memory;
  const inputs in{.p = sara::matrix_view<const float>{nullptr, 0, 5}, .q = sara::matrix_view<const float>{&one, 0, 5, 9}};
  oracle::call_mirrored(memory, in, outputs{}, [&](const inputs& in_there, const outputs& out_there) {
    CHECK(memory.islands == 0);
    CHECK((in_there.p.given() && !in_there.p.data() && in_there.p.columns() == 5));
    CHECK((in_there.q.data() == &one && in_there.q.row_stride() == 9));
    CHECK((!in_there.grad_divergence.given() && !out_there.divergence.given() && !out_there.grad_p.given()));
  });
}

TEST_CASE("a call that writes to an input is found out, and one that throws changes nothing", "[mirror]") {
  std::vector<float> p(20, 1), q(20, 2), d(4, 3);
  const inputs in{.p = sara::matrix_view<const float>{p.data(), 4, 5}, .q = sara::matrix_view<const float>{q.data(), 4, 5}};
  const outputs out{.divergence = sara::vector_view{d}};
  pretended_memory memory;
  CHECK_THROWS_AS(
      oracle::call_mirrored(memory, in, out, [](const inputs& in_there, const outputs&) { const_cast<float*>(in_there.p.data())[7] = 0; }),
      std::logic_error);
  CHECK_THROWS_AS(oracle::call_mirrored(memory, in, out,
                                        [](const inputs&, const outputs& out_there) {
                                          out_there.divergence[0] = 0;
                                          throw sara::invalid_argument("refused");
                                        }),
                  sara::invalid_argument);
  CHECK(p == std::vector<float>(20, 1));
  CHECK(d == std::vector<float>(4, 3));
}
