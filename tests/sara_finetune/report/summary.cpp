// What is said of a run, for every way that it can end.
#include "sara_finetune/report/summary.hpp"

#include <algorithm>
#include <limits>
#include <sstream>

#include "catch.hpp"
#include "made_up_run.hpp"
#include "sara_finetune/report/findings.hpp"

namespace {

using namespace sara_finetune;
using made_up::plan;

constexpr double not_measured = std::numeric_limits<double>::quiet_NaN();

void set_bits(run_results& results, const std::string& model, const std::string& language, const std::vector<double>& values) {
  for (std::size_t s = 0; s < values.size(); ++s) results.evaluations.at(model)[s].bits_per_byte[language] = values[s];
}

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string all_findings(const run_results& results) {
  std::string text;
  for (const finding& one : findings(results)) text += one.about + ": " + one.sentence + "\n";
  return text;
}

std::string about(const run_results& results, const std::string& start) {
  for (const finding& one : findings(results)) {
    if (one.about.starts_with(start)) return one.sentence;
  }
  return {};
}

}   // namespace

TEST_CASE("summary: the sentence follows from the interval", "[sara_finetune]") {
  // Differences -0.1, -0.2, -0.3: mean -0.2, deviation 0.1, t(0.975, 2) = 4.30265, half width 0.248414.
  const std::vector<double> plain = {1, 1, 1};
  CHECK(difference(std::vector{0.9, 0.8, 0.7}, plain) == "no difference resolved (-0.2000 [-0.4484, +0.04841], 3 seeds)");
  // -0.19, -0.2, -0.21: half width 0.0248414.
  CHECK(difference(std::vector{0.81, 0.8, 0.79}, plain) == "lower by 0.2000 [0.1752, 0.2248] (95 % t-interval, 3 seeds)");
  CHECK(difference(std::vector{1.19, 1.2, 1.21}, plain) == "higher by 0.2000 [0.1752, 0.2248] (95 % t-interval, 3 seeds)");
  CHECK(difference(plain, plain) == "no difference resolved (0.000 [0.000, 0.000], 3 seeds)");
  CHECK(difference(std::vector{0.5}, std::vector{1.0}) == "one seed shows no interval: nothing is claimed");
  CHECK(difference(std::vector{0.5, not_measured}, std::vector{1.0, 1.0}) == "not measured");
  CHECK(difference(std::vector{0.5, 0.5}, std::vector{1.0, not_measured}) == "not measured");
}

TEST_CASE("summary: findings of a resolved, an unresolved and a lost comparison", "[sara_finetune]") {
  run_results results = made_up::results({.seeds = 3});
  set_bits(results, "plain", "sw", {1, 1, 1});
  set_bits(results, "sara", "sw", {0.81, 0.8, 0.79});
  set_bits(results, "shuffled", "sw", {0.81, 0.81, 0.78});
  set_bits(results, "pretrained", "en", {2, 2, 2});
  set_bits(results, "plain", "en", {2.1, 2.2, 2.15});
  set_bits(results, "sara", "en", {2.3, 2.31, 2.29});

  const std::vector<finding> all = findings(results);
  REQUIRE(!all.empty());
  CHECK(all.front().headline);
  CHECK(says(all.front().about, "Bits a byte of sw"));
  CHECK(says(all.front().sentence, "SARA against plain: lower by 0.2000 [0.1752, 0.2248] (95 % t-interval, 3 seeds)."));
  CHECK(says(all.front().sentence, "plain 1.000, SARA 0.8000."));
  CHECK(std::count_if(all.begin(), all.end(), [](const finding& f) { return f.headline; }) == 1);

  const std::string forgotten = about(results, "Bits a byte of en");
  CHECK(says(forgotten, "SARA against pretrained: higher by 0.3000 [0.2752, 0.3248]"));
  CHECK(says(forgotten, "plain against pretrained: higher by 0.1500 ["));
  CHECK(says(forgotten, "SARA against plain: higher by 0.1500 ["));
  CHECK(says(about(results, "Control for sw"), "SARA against shuffled anchors: no difference resolved ("));
  CHECK(says(about(results, "Control for sw"), "does not show that it matters"));

  set_bits(results, "sara", "sw", {1.19, 1.2, 1.21});
  CHECK(says(findings(results).front().sentence, "SARA against plain: higher by 0.2000"));
  CHECK(says(about(results, "Control for sw"), "does worse than another sentence's"));
  set_bits(results, "sara", "sw", {0.9, 0.8, 0.7});
  CHECK(says(findings(results).front().sentence, "no difference resolved (-0.2000 [-0.4484, +0.04841], 3 seeds)"));
  set_bits(results, "shuffled", "sw", {1.1, 1.0, 0.91});
  CHECK(says(about(results, "Control for sw"), "does better than another sentence's"));
}

TEST_CASE("summary: one seed claims nothing", "[sara_finetune]") {
  const run_results results = made_up::results({.seeds = 1});
  CHECK(says(findings(results).front().sentence, "one seed shows no interval: nothing is claimed"));
  const std::string text = all_findings(results);
  CHECK(says(about(results, "Bits a byte of en"), "One seed shows no interval: nothing is claimed"));
  CHECK(says(about(results, "Control"), "one seed shows no interval: nothing is claimed"));
  for (const char* claim : {"lower by", "higher by", "resolved", "better", "worse", "does not show", "seed by seed"})
    CHECK_FALSE(says(text, claim));
}

TEST_CASE("summary: the divergence in the window, as a ratio", "[sara_finetune]") {
  run_results results = made_up::results({.seeds = 2});
  // Layers 2 to 4 hold 0.01, 0.02 and 0.03 under plain, a fifth of it under SARA; anchored is 1.5 times live.
  const std::string sentence = about(results, "Divergence of sw from en in the window, layers 2 to 4");
  CHECK(says(sentence,
             "SARA leaves 0.2000 of plain's (6.000 against 30.00 thousandths of a nat; seed by seed 0.20 to 0.20) against the frozen "
             "anchors, and live 0.2000 of plain's (4.000 against 20.00"));
  CHECK(says(sentence, "Outside the window, against the anchors: 0.2000 of plain's (13.00 against 65.00"));
  CHECK(mean_divergence(results, "plain", "sw", &layer_divergences::live)[1] == Approx(0.02));
  CHECK(mean_divergence(results, "plain", "sw", &layer_divergences::live, layer_range::outside)[0] == Approx((0.04 + 0.05 + 0.04) / 3));

  CHECK(says(sentence, "Normalised by the histograms' entropies, live: 0.2000 of plain's (4.000 against 20.00 thousandths; seed by seed"));
  // Unpaired is 0.03 above live: a mean of 0.034 under SARA and of 0.05 under plain.
  CHECK(says(sentence,
             "Unpaired sentences of the two languages come nearer as well: 0.6800 of plain's (34.00 against 50.00 thousandths of a nat; "
             "seed by seed 0.68 to 0.68), so a part of this is routing that tells sentences apart less."));

  run_results other = results;
  for (model_evaluation& evaluation : other.evaluations["sara"]) {
    evaluation.normalized["sw"].live.assign(6, 0.03);
    evaluation.divergence["sw"].unpaired.assign(6, 0.06);
  }
  CHECK(says(about(other, "Divergence"), "entropies, live: 1.500 of plain's (30.00 against 20.00 thousandths;"));
  CHECK(says(about(other, "Divergence"),
             "Unpaired sentences of the two languages: 1.200 of plain's (60.00 against 50.00 thousandths of a nat;"));
  for (const char* untrue : {"nearer as well", "apart less"}) CHECK_FALSE(says(about(other, "Divergence"), untrue));
  other = results;
  for (model_evaluation& evaluation : other.evaluations["sara"]) evaluation.divergence["sw"].live.assign(6, 0.03);   // above plain's
  for (const char* untrue : {"nearer as well", "apart less"}) CHECK_FALSE(says(about(other, "Divergence"), untrue));
  other.evaluations["plain"][1].normalized["sw"].live.clear();
  other.evaluations["sara"][0].divergence["sw"].unpaired.clear();
  for (const char* left_out : {"Normalised", "Unpaired", "not measured"}) CHECK_FALSE(says(about(other, "Divergence"), left_out));
  other.evaluations["sara"][0].normalized.clear();
  CHECK_FALSE(says(about(other, "Divergence"), "Normalised"));

  results.evaluations["plain"][0].divergence["sw"].anchored.assign(6, 0.0);
  results.evaluations["plain"][1].divergence["sw"].anchored.assign(6, 0.0);
  CHECK(says(about(results, "Divergence"), "which makes no ratio"));
  results.evaluations["plain"][0].divergence["sw"].anchored[3] = not_measured;
  CHECK(says(about(results, "Divergence"), "not measured against"));
  CHECK_FALSE(says(all_findings(results), "nan"));

  const run_results everywhere = made_up::results({.seeds = 2, .window_first = 0, .window_last = 5});
  CHECK_FALSE(says(all_findings(everywhere), "Outside the window"));
}

TEST_CASE("summary: arms that were not trained are not spoken of", "[sara_finetune]") {
  const std::string alone = all_findings(made_up::results({.models = {"pretrained", "plain"}}));
  CHECK(says(alone, "plain against pretrained"));
  CHECK_FALSE(says(alone, "SARA"));
  CHECK_FALSE(says(all_findings(made_up::results({.models = {"pretrained", "plain", "sara"}})), "shuffled"));
  const run_results many = made_up::results({.low = {"sw", "ne"}});
  std::size_t headlines = 0;
  for (const finding& one : findings(many)) headlines += one.headline ? 1 : 0;
  CHECK(headlines == 2);
}

TEST_CASE("summary: small corpora are warned of", "[sara_finetune]") {
  run_results results = made_up::results({.low = {"sw", "ne"}});
  CHECK(warnings(results).empty());   // 1,000 pairs each
  results.files[1].test = 99;
  REQUIRE(warnings(results).size() == 1);
  CHECK(says(warnings(results)[0], "Only 999 pairs of ne: below 1,000"));
  results.illustrative = true;
  REQUIRE(warnings(results).size() == 2);
  CHECK(says(warnings(results)[0], "only illustrates"));
  CHECK(says(summary_table(results), "WARNING: Only 999 pairs of ne"));
  CHECK(says(what_was_run(results), "sw (800 pairs to train on, 100 for validation, 100 for the test) and ne ("));
  CHECK(says(what_was_run(results), "3 arms that start from one checkpoint (plain, SARA and shuffled anchors), under 5 seeds."));
  CHECK(says(what_was_run(results), "All figures but the training curves are measured on the test pairs, which no stage has seen."));
  results.part = "validation";
  CHECK_FALSE(says(what_was_run(results), "no stage has seen"));
  CHECK(says(what_was_run(results), "All figures but the training curves are measured on the validation pairs"));
}

TEST_CASE("summary: a validation that ended above its best is warned of, once a language", "[sara_finetune]") {
  run_results results = made_up::results({.low = {"sw", "ne"}, .seeds = 2});
  // Of steps 5, 10, 15 and 20.
  const auto validated = [&](std::size_t s, const std::string& stage, const std::string& arm, const std::vector<double>& bits) {
    for (training_curve& curve : results.curves[s]) {
      if (curve.stage != stage || curve.arm != arm) continue;
      for (std::size_t i = 0; i < bits.size(); ++i) curve.validation[i].bits_per_byte["sw"] = bits[i];
    }
  };
  validated(0, "pretrain", "", {2, 3, 4, 5});
  validated(0, "finetune", "sara", {2.4, 2.3, 2.31, 2.315});
  validated(0, "finetune", "shuffled", {2.4, not_measured, 2.31, not_measured});
  CHECK(warnings(results).empty());
  validated(1, "finetune", "plain", {2.4, 2.29, 2.3, 2.77});
  validated(1, "finetune", "sara", {2.4, 2.3, 2.4, 2.5});
  validated(0, "finetune", "plain", {2.4, 2.3, 2.3, 2.33});
  REQUIRE(warnings(results).size() == 1);
  CHECK(warnings(results)[0] ==
        "sw: validation was best at step 10 of 20 (2.29 bits a byte) and ended at 2.77 (plain, seed 2): the text is too small for so many "
        "tokens; choose fewer with --finetune-tokens.");
  validated(1, "finetune", "plain", {2.4, 2.3, 2.3, 2.3});
  validated(0, "finetune", "sara", {not_measured, 2.1, 2.6, not_measured});
  REQUIRE(warnings(results).size() == 1);
  CHECK(says(warnings(results)[0], "step 10 of 15 (2.10 bits a byte) and ended at 2.60 (SARA, seed 1)"));
  for (training_curve& curve : results.curves[0]) {
    if (curve.arm == "plain") curve.validation.back().bits_per_byte["ne"] = 9;
  }
  REQUIRE(warnings(results).size() == 2);
  CHECK(says(warnings(results)[1], "ne: validation was best at step 15 of 20 (2.85 bits a byte) and ended at 9.00 (plain, seed 1)"));
  for (auto& seed : results.curves) seed.clear();
  CHECK(warnings(results).empty());
}

TEST_CASE("summary: the table's cells", "[sara_finetune]") {
  run_results results = made_up::results({.seeds = 3});
  set_bits(results, "sara", "sw", {2.0, 2.1, 2.2});
  results.evaluations["plain"][1].bits_per_byte["sw"] = not_measured;
  results.evaluations["plain"][1].cloze["sw"] = {.right = 0, .items = 0};
  results.evaluations["sara"][0].cloze["sw"] = {.right = 20, .items = 100};
  results.evaluations["sara"][1].cloze["sw"] = {.right = 30, .items = 100};
  results.evaluations["sara"][2].cloze["sw"] = {.right = 40, .items = 100};
  const table cells = main_table(results, "sw");
  REQUIRE(cells.rows.size() == 4);
  for (const auto& row : cells.rows) CHECK(row.size() == cells.header.size());
  CHECK(cells.rows[1][1] == "n/a");
  CHECK(cells.rows[1][3] == "n/a");
  CHECK(cells.rows[2][0] == "SARA");
  CHECK(cells.rows[2][1] == "2.100 (0.10)");
  // Wilson for 30 of 100, not of 300: 0.2189 to 0.3958.
  CHECK(cells.rows[2][3] == "30.0 [22, 40]");
  CHECK(cells.rows[2][4] == "4.000 (0.0)");
  CHECK(says(summary_table(results), "25 % is chance"));

  const table layers = layer_table(results, "sw");
  CHECK(layers.header.size() == 2 + 6);
  for (const auto& row : layers.rows) CHECK(row.size() == layers.header.size());
  const auto live =
      std::find_if(layers.rows.begin(), layers.rows.end(), [](const auto& row) { return row[0] == "plain" && row[1] == "live"; });
  REQUIRE(live != layers.rows.end());
  CHECK((*live)[2 + 1] == "50.00");
}

TEST_CASE("summary: arms with long names are told apart", "[sara_finetune]") {
  plan many;
  const std::string longest = "sara+rehearsal=0.25+window=1-3+lambda=0.";
  many.models.insert(many.models.end(), {"sara+rehearsal=0+lambda=5", "sara+rehearsal=0+lambda=8", longest + "5", longest + "8"});
  const std::string text = summary_table(made_up::results(many));
  for (const char* whole : {"\nSARA, rehearsal=0, lambda=5 ", "\nSARA, rehearsal=0, lambda=8 "}) CHECK(says(text, whole));
  for (const char* rest : {"lambda=0.5\n", "lambda=0.8\n"}) CHECK(says(text, rest));
}

TEST_CASE("summary: no line is wider than 100 columns", "[sara_finetune]") {
  plan wide{.low = {"sw", "a-language-tag-that-never-ends-\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"}};
  wide.models.push_back("sara+lambda=0.5+window=1-3+rehearsal=0.25");
  run_results results = made_up::results(wide);
  results.corpus = std::string(150, 'x');
  results.illustrative = true;
  std::istringstream text(summary_table(results));
  for (std::string line; std::getline(text, line);) {
    CAPTURE(line);
    std::size_t columns = 0;
    for (const char c : line) columns += (static_cast<unsigned char>(c) & 0xc0) != 0x80 ? 1 : 0;
    CHECK(columns <= 100);
    CHECK((line.empty() || line.back() != ' '));
  }
}
