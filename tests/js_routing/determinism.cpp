// The same bits on every run, for every number of threads, with a pool, and under any parallel-for that a user brings.
#include <memory>
#include <thread>

#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

// One long sequence, many short ones, and a mix of both with holes.
std::vector<oracle::problem> shapes() {
  std::vector<oracle::problem> out{oracle::plain_problem(1, 1, 1, 5000, 33), oracle::plain_problem(2, 3, 40, 9, 64),
                                   oracle::plain_problem(3, 2, 4, 700, 128)};
  auto mixed = oracle::plain_problem(4, 2, 1, 3000, 60);
  oracle::source from(4);
  oracle::pack(mixed, from, 9, true);
  mixed.offsets[3] = mixed.offsets[4];
  mixed.anchor_count = 3;
  mixed.anchor_rows = {0, 1, 2, -1, 1, 0, 2, 1, 0};
  mixed.anchors = oracle::distributions(from, 2 * 3, 60);
  mixed.token_weights = from.uniforms(3000, 0, 1);
  for (double& m : mixed.token_weights) m = m < 0.2 ? 0 : m;
  out.push_back(mixed);
  auto saved = out.front();
  saved.histograms = oracle::distributions(from, 1, 33);
  out.push_back(saved);
  auto spoilt = out[2];
  spoilt.logits[700 * 128 + 5] = std::numeric_limits<double>::quiet_NaN();
  out.push_back(spoilt);
  return out;
}

template <class T, class G = T> class same_bits {
 public:
  explicit same_bits(const oracle::problem& in, oracle::posing how = {})
      : in_(in), how_(std::move(how)), given_(in, how_), want_(in, how_) {}

  template <class Executor> void expect(const Executor& exec) {
    oracle::answers<T, G> got(in_, how_);
    const sara::js_routing_options options{.scale = in_.scale, .mode = how_.mode};
    sara::js_routing_into(exec, given_.inputs(), first_ ? want_.outputs() : got.outputs(), options);
    if (!first_) CHECK(got.same_bits_as(want_));
    first_ = false;
  }

 private:
  const oracle::problem& in_;
  oracle::posing how_;
  oracle::arguments<T> given_;
  oracle::answers<T, G> want_;
  bool first_ = true;
};

constexpr auto serial = [](int workers, sara::worker_task task) {
  for (int w = 0; w < workers; ++w) task(w);
};
constexpr auto reversed = [](int workers, sara::worker_task task) {
  for (int w = workers; w-- > 0;) task(w);
};
constexpr auto all_at_once = [](int workers, sara::worker_task task) {
  std::vector<std::thread> threads;
  for (int w = 0; w < workers; ++w) threads.emplace_back(task, w);
  for (auto& t : threads) t.join();
};

template <class T, class G = T> void every_way_of_running(const oracle::posing& how = {}) {
  const auto problems = shapes();
  for (std::size_t i = 0; i < problems.size(); ++i) {
    auto posed = how;
    if (how.mode == sara::gradient_mode::accumulate) posed.buffer = oracle::source(i).normals(problems[i].logits.size());
    oracle::for_each_instruction_set([&](sara::cpu_executor exec, const char* name) {
      same_bits<T, G> same(problems[i], posed);
      exec.threads = 1;
      same.expect(exec);
      for (const int threads : {0, 1, 2, 3, 7, 16}) {
        CAPTURE(name, i, threads);
        exec.threads = threads;
        exec.pool = {};
        same.expect(exec);
        exec.pool = serial;
        same.expect(exec);
        exec.pool = reversed;
        same.expect(exec);
        exec.pool = all_at_once;
        same.expect(exec);
      }
      for (const int size : {1, 2, 3, 7}) {
        sara::thread_pool pool(size);
        for (const int threads : {0, 2, 16}) {
          CAPTURE(name, i, threads, size);
          exec.threads = threads;
          exec.pool = pool;
          same.expect(exec);
        }
      }
    });
  }
}

}   // namespace

TEST_CASE("float: the same bits however it runs", "[determinism]") { every_way_of_running<float>(); }
TEST_CASE("double: the same bits however it runs", "[determinism]") { every_way_of_running<double>(); }
TEST_CASE("bf16, float gradient, accumulate: the same bits however it runs", "[determinism]") {
  every_way_of_running<sara::bf16, float>({.mode = sara::gradient_mode::accumulate});
}
TEST_CASE("fp16: the same bits however it runs", "[determinism]") { every_way_of_running<sara::fp16>(); }

TEST_CASE("the same bits on 20 runs", "[determinism]") {
  for (const auto& in : shapes()) {
    same_bits<float> same(in);
    sara::thread_pool pool(3);
    for (int i = 0; i < 20; ++i) {
      same.expect(sara::cpu_executor{.threads = 3});
      same.expect(sara::cpu_executor{.pool = pool});
    }
    oracle::for_the_device([&](const auto& exec, const char* name) {
      CAPTURE(name);
      same_bits<float> same_there(in);
      for (int i = 0; i < 20; ++i) same_there.expect(exec);
    });
  }
}

TEMPLATE_TEST_CASE("the same bits in place of the logits", "[determinism]", float, double, sara::bf16) {
  for (const auto& in : shapes()) {
    oracle::for_each_instruction_set([&](sara::cpu_executor exec, const char* name) {
      const oracle::arguments<TestType> given(in);
      oracle::answers<TestType> want(in);
      sara::js_routing_into(exec, given.inputs(), want.outputs());
      for (const int threads : {1, 2, 7}) {
        CAPTURE(name, threads);
        exec.threads = threads;
        oracle::arguments<TestType> here(in);
        oracle::answers<TestType> got(in);
        auto outputs = got.outputs();
        outputs.grad_logits = here.logits.view();
        sara::js_routing_into(exec, here.inputs(), outputs);
        CHECK(oracle::same_bits(here.logits.values(), want.grad.values()));
        CHECK(oracle::same_bits(got.loss, want.loss));
        CHECK(oracle::same_bits(got.divergence.memory(), want.divergence.memory()));
      }
    });
  }
}

TEST_CASE("Eigen's executor gives the same bits on every run", "[determinism]") {
  const auto in = shapes()[3];
  const oracle::arguments<float> given(in);
  oracle::answers<float> want(in);
  sara::js_routing_into(sara::eigen_executor{}, given.inputs(), want.outputs());
  for (int i = 0; i < 3; ++i) {
    oracle::answers<float> got(in);
    sara::js_routing_into(sara::eigen_executor{}, given.inputs(), got.outputs());
    CHECK(got.same_bits_as(want));
  }
}

TEST_CASE("calls at the same time, each on its own copy of the executor, do not disturb each other", "[determinism]") {
  const auto in = shapes()[1];
  const oracle::arguments<float> given(in);
  oracle::answers<float> want(in);
  sara::js_routing_into(sara::cpu_executor{.threads = 1}, given.inputs(), want.outputs());
  sara::thread_pool pool(2);   // one call at a time: the others wait
  std::vector<std::unique_ptr<oracle::answers<float>>> got;
  for (int i = 0; i < 8; ++i) got.push_back(std::make_unique<oracle::answers<float>>(in));
  std::vector<std::thread> callers;
  for (std::size_t i = 0; i < 8; ++i)
    callers.emplace_back([&, i] {
      sara::js_routing_into(i % 2 ? sara::cpu_executor{.threads = 2} : sara::cpu_executor{.pool = pool}, given.inputs(), got[i]->outputs());
    });
  for (auto& caller : callers) caller.join();
  for (const auto& g : got) CHECK(g->same_bits_as(want));
}
