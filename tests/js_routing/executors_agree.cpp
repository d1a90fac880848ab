// The instruction sets, Eigen and the device give one answer, within fp32's rounding.
#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

template <class T> void all_agree() {
  for (const std::size_t experts : {2u, 8u, 60u, 64u, 129u, 257u, 1024u})
    for (const std::size_t length : {1u, 20u, 150u}) {
      const auto in = oracle::rounded_to<T>(oracle::plain_problem(experts * length, 2, 3, length, experts));
      const auto want = oracle::solve(in);   // only for sizes
      std::vector<oracle::result<double>> answers;
      std::vector<const char*> names;
      const auto answer = [&](const auto& exec, const char* name) {
        answers.push_back(oracle::evaluate<T, sara::arithmetic_t<T>>(exec, in));
        names.push_back(name);
      };
      oracle::for_each_host_executor(answer);
      oracle::for_the_device(answer);
      REQUIRE(answers.size() >= 2);
      for (std::size_t i = 1; i < answers.size(); ++i) {
        CAPTURE(names[i], names[0], experts, length);
        CHECK(oracle::loss_error(answers[i].loss, answers[0].loss, want.root_loss) <= 1);
        for (std::size_t j = 0; j < want.divergence.size(); ++j)
          CHECK(oracle::loss_error(answers[i].divergence[j], answers[0].divergence[j], std::sqrt(want.divergence[j])) <= 1);
        CHECK(oracle::relative_error(answers[i].grad, answers[0].grad) <= 4e-6);
        CHECK(oracle::relative_error(answers[i].histograms, answers[0].histograms) <= 4e-6);
        CHECK(answers[i].token_mass == answers[0].token_mass);
      }
    }
}

}   // namespace

TEST_CASE("executors agree on float", "[executors]") { all_agree<float>(); }
TEST_CASE("executors agree on bf16", "[executors]") { all_agree<sara::bf16>(); }
TEST_CASE("executors agree on fp16", "[executors]") { all_agree<sara::fp16>(); }

TEST_CASE("an instruction set that this machine lacks is refused by name", "[executors]") {
  const auto in = oracle::plain_problem(1, 1, 1, 3, 4);
  const oracle::arguments<double> given(in);
  for (const auto isa : {sara::instruction_set::avx2, sara::instruction_set::avx512}) {
    if (sara::is_supported(isa)) continue;
    oracle::answers<double> got(in);
    CHECK_THROWS_AS(sara::js_routing_into(sara::cpu_executor{.isa = isa}, given.inputs(), got.outputs()), sara::invalid_argument);
    CHECK(std::isnan(got.loss[0]));
  }
}
