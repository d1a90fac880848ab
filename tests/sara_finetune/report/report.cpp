// Runs read back, their figures and their page.
#include "sara_finetune/report/report.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <pugixml.hpp>
#include <set>
#include <sstream>

#include "catch.hpp"
#include "drawn_points.hpp"
#include "made_up_run.hpp"
#include "sara_finetune/report/findings.hpp"

namespace {

using namespace sara_finetune;
using files::complaint, files::temporary_folder;
using nlohmann::json;

constexpr double not_measured = std::numeric_limits<double>::quiet_NaN();

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t times = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++times;
  return times;
}

std::string bytes(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

pugi::xml_document parsed(const std::string& svg) {
  pugi::xml_document document;
  const pugi::xml_parse_result result = document.load_string(svg.c_str());
  INFO(result.description() << " at " << result.offset);
  REQUIRE(result);
  return document;
}

std::vector<std::vector<point>> lines_of(const figure& of, const std::string& color, const std::string& width) {
  const pugi::xml_document document = parsed(of.svg);
  std::vector<std::vector<point>> lines;
  for (const pugi::xml_node& line : document.child("svg").children("polyline")) {
    if (line.attribute("stroke").value() == color && line.attribute("stroke-width").value() == width) lines.push_back(points_of(line));
  }
  return lines;
}

std::vector<std::string> texts(const figure& of) {
  const pugi::xml_document document = parsed(of.svg);
  std::vector<std::string> all;
  for (const pugi::xml_node& text : document.child("svg").children("text")) all.emplace_back(text.child_value());
  return all;
}

bool holds(const std::vector<std::string>& all, const std::string& one) { return std::find(all.begin(), all.end(), one) != all.end(); }

void check_sound(const std::string& svg) {
  const pugi::xml_document document = parsed(svg);
  CHECK(document.child("svg").child("title"));
  for (const char* wrong : {"nan", "=\"inf", "=\"-inf", "<script", "<image", "href", "url(", " id=\""}) CHECK_FALSE(says(svg, wrong));
}

json edited(const std::filesystem::path& file) { return json::parse(bytes(file)); }

}   // namespace

TEST_CASE("report: a run folder is read back", "[sara_finetune]") {
  const run_results results =
      made_up::results({.low = {"sw", "ne"}, .models = {"zebra", "sara", "pretrained", "shuffled", "plain"}, .seeds = 2});
  CHECK(results.high == "en");
  CHECK(results.low == std::vector<std::string>{"sw", "ne"});
  CHECK(results.models == std::vector<std::string>{"pretrained", "plain", "sara", "shuffled", "zebra"});
  CHECK(results.seeds == std::vector<std::uint64_t>{1, 2});
  CHECK(results.window_first == 2);
  CHECK(results.window_last == 4);
  CHECK(results.corpus == "made-up");
  CHECK_FALSE(results.illustrative);
  CHECK(bits_per_byte(results, "plain", "sw")[1] == made_up::low_bits("plain", 1));
  REQUIRE(results.curves.size() == 2);
  REQUIRE(results.curves[1].size() == 5);
  for (const training_curve& curve : results.curves[1]) {
    CHECK(curve.training.size() == 20);
    REQUIRE(curve.validation.size() == 4);
    CHECK(curve.validation[1].tokens == 10000);
    CHECK(curve.validation[1].bits_per_byte.at("sw") == Approx(2.9));
    CHECK(std::isnan(curve.training[0].divergence) == (curve.stage == "pretrain"));
  }
}

TEST_CASE("report: curves of arms that were not evaluated are left out", "[sara_finetune]") {
  const temporary_folder folder;
  made_up::write({.models = {"pretrained", "plain", "sara"}, .seeds = 1}, folder);
  folder.write("seed-1/metrics.jsonl", made_up::metrics({.models = {"pretrained", "plain", "shuffled", "sara", "extra"}}));
  const run_results results = read_results(folder.path());
  std::vector<std::string> arms;
  for (const training_curve& curve : results.curves[0]) arms.push_back(curve.arm);
  CHECK(arms == std::vector<std::string>{"", "plain", "sara"});
  const std::vector<std::string> words = texts(training_curves(results));
  CHECK(holds(words, "SARA"));
  for (const char* arm : {"shuffled anchors", "extra"}) CHECK_FALSE(holds(words, arm));
}

TEST_CASE("report: other seeds' folders and monolingual files do not count", "[sara_finetune]") {
  const temporary_folder folder;
  made_up::write({.seeds = 3}, folder);
  json settings = edited(folder.path() / "settings.json");
  settings["seed"] = 2;
  settings["seeds"] = 2;
  settings["corpus"]["files"].push_back(
      {{"file", "more.txt"}, {"language", "en"}, {"parallel", false}, {"training", 9}, {"validation", 0}, {"test", 0}});
  folder.write("settings.json", settings.dump());
  const run_results results = read_results(folder.path());
  CHECK(results.seeds == std::vector<std::uint64_t>{2, 3});
  CHECK(results.low == std::vector<std::string>{"sw"});
  CHECK(results.files.size() == 1);
}

TEST_CASE("report: what is missing or malformed is one sentence", "[sara_finetune]") {
  const temporary_folder folder;
  const std::filesystem::path out = folder.path();
  const auto refused = [&](const std::string& file, const std::string& expected) {
    const std::string sentence = complaint([&] { read_results(out); });
    INFO(sentence);
    CHECK(says(sentence, (out / file).string()));
    CHECK(says(sentence, expected));
    CHECK(sentence.find('\n') == std::string::npos);
  };
  const auto with_settings = [&](const std::function<void(json&)>& change, const std::string& expected) {
    made_up::write({.seeds = 2}, folder);
    json settings = edited(out / "settings.json");
    change(settings);
    folder.write("settings.json", settings.dump());
    refused("settings.json", expected);
  };
  const auto with_evaluation = [&](const std::function<void(json&)>& change, const std::string& expected) {
    made_up::write({.seeds = 2}, folder);
    json evaluation = edited(out / "seed-2" / "evaluation.json");
    change(evaluation["models"]);
    folder.write("seed-2/evaluation.json", evaluation.dump());
    refused("seed-2/evaluation.json", expected);
  };
  const auto with_metrics = [&](const std::string& line, const std::string& expected) {
    made_up::write({.seeds = 2}, folder);
    folder.write("seed-1/metrics.jsonl", made_up::metrics({}) + line + "\n");
    refused("seed-1/metrics.jsonl:97", expected);
  };

  CHECK(says(complaint([&] { read_results(out / "nowhere"); }), "nowhere: expected the folder of a run, found none"));
  refused("settings.json", "No such file");
  folder.write("settings.json", "{\"high\": ");
  refused("settings.json", "expected JSON");
  folder.write("settings.json", "[1]");
  refused("settings.json", "expected an object");
  with_settings([](json& s) { s.erase("high"); }, "expected the key \"high\", found none");
  with_settings([](json& s) { s["layers"] = "six"; }, "expected an integer of at least 1 at \"layers\", found \"six\"");
  with_settings([](json& s) { s["layers"] = 0; }, "found 0");
  with_settings([](json& s) { s["layers"] = 18446744073709551615u; }, "expected an integer");
  with_settings([](json& s) { s["experts"] = 8.5; }, "found 8.5");
  with_settings([](json& s) { s["seeds"] = true; }, "found true");
  with_settings([](json& s) { s["seeds"] = 1000000000; }, "expected at most 10000 seeds at \"seeds\", found 1000000000");
  with_settings([](json& s) { s["window"] = {2, 6}; }, "two layers in order, from 0 to 5");
  with_settings([](json& s) { s["window"] = {4, 2}; }, "two layers in order");
  with_settings([](json& s) { s["window"] = {2}; }, "the first and the last layer");
  with_settings([](json& s) { s["corpus"]["files"] = json::array(); }, "at least one parallel file");
  with_settings([](json& s) { s["corpus"]["files"][0]["test"] = -1; }, "at \"corpus.files[0].test\", found -1");
  with_settings([](json& s) { s["illustrative"] = 1; }, "expected true or false at \"illustrative\", found 1");
  with_settings([](json& s) { s.erase("corpus_name"); }, "expected the key \"corpus_name\"");

  with_evaluation([](json& m) { m.erase("pretrained"); }, "expected the key \"models.pretrained\"");
  with_evaluation([](json& m) { m.erase("sara"); }, "the same models under every seed, found 3");
  with_evaluation([](json& m) { m["other"] = m["sara"], m.erase("sara"); }, "found \"other\"");
  with_evaluation([](json& m) { m["sara"].erase("bits_per_byte"); }, "model \"sara\"");
  with_evaluation([](json& m) { m["sara"]["bits_per_byte"]["sw"] = "low"; }, "model \"sara\"");
  with_evaluation([](json& m) { m["sara"]["bits_per_byte"].erase("sw"); }, "expected bits_per_byte of the language \"sw\", found none");
  with_evaluation([](json& m) { m["sara"]["divergence"]["sw"]["live"].erase(0); }, "expected 6 values of divergence of sw, found 5");
  with_evaluation([](json& m) { m["sara"]["divergence"]["sw"]["unpaired"].erase(0); }, "expected 6 values of divergence of sw, found 5");
  with_evaluation([](json& m) { m["sara"]["normalized"]["sw"]["live"].erase(0); },
                  "expected 6 values of normalized divergence of sw, found 5");
  with_evaluation([](json& m) { m["sara"]["expert_use"]["en"][3].erase(0); }, "expected 8 values of expert_use of en, found 7");

  with_metrics("{\"stage\":\"finetune\",", "expected JSON");
  with_metrics("{\"stage\":\"sleep\",\"arm\":\"\",\"step\":1}", "expected \"pretrain\" or \"finetune\" at \"stage\", found \"sleep\"");
  with_metrics("{\"stage\":\"finetune\",\"arm\":\"sara\",\"step\":1}", "expected the key \"tokens\"");
  with_metrics("{\"stage\":\"finetune\",\"arm\":\"sara\",\"step\":1,\"validation\":{\"en\":\"x\"}}", "at \"validation.en\", found \"x\"");

  made_up::write({.seeds = 2}, folder);
  std::filesystem::remove(out / "seed-2" / "evaluation.json");
  refused("seed-2/evaluation.json", "No such file");
  made_up::write({.seeds = 2}, folder);
  std::filesystem::remove(out / "seed-1" / "metrics.jsonl");
  refused("seed-1/metrics.jsonl", "No such file");
}

TEST_CASE("report: the divergence figure holds every layer of every model", "[sara_finetune]") {
  const run_results results = made_up::results();
  const figure drawn = divergence_over_depth(results, "sw");
  check_sound(drawn.svg);
  const std::pair<std::string, std::pair<std::string, std::string>> models[] = {
      {"pretrained", {"#5f6368", "2"}}, {"plain", {"#d55e00", "2"}}, {"sara", {"#0072b2", "2.6"}}, {"shuffled", {"#009e73", "2"}}};
  double unit[2] = {0, 0};   // drawing's units a nat, the same in both panels
  for (const auto& [model, pen] : models) {
    CAPTURE(model);
    auto lines = lines_of(drawn, pen.first, pen.second);
    std::erase_if(lines, [](const auto& line) { return line.size() == 2; });   // the legend's
    REQUIRE(lines.size() == 2);
    for (std::size_t panel = 0; panel < 2; ++panel) {
      REQUIRE(lines[panel].size() == 6);
      const double factor = panel == 0 ? 1 : 1.5;
      // Layer 1 is the highest, layer 2 the lowest.
      const double nats = factor * (made_up::live(model, 1) - made_up::live(model, 2));
      const double here = (lines[panel][2].y - lines[panel][1].y) / nats;
      if (unit[panel] == 0) unit[panel] = here;
      CHECK(here == Approx(unit[panel]).epsilon(2e-3));
    }
  }
  CHECK(unit[0] == Approx(unit[1]).epsilon(2e-3));
  CHECK(lines_of(drawn, "#5f6368", "1.1").size() == 6);   // its references, in both panels
  CHECK(lines_of(drawn, "#0072b2", "1.1").size() == 3);
  const auto words = texts(drawn);
  for (const char* expected : {"Divergence of sw from en over depth", "References, of the pretrained model and of SARA in their colours:",
                               "plain", "SARA", "SARA's window", "divergence (thousandths of a nat)"}) {
    CHECK(holds(words, expected));
  }
  CHECK(count(drawn.svg, "<polygon") > 8);                                                              // bands and markers
  CHECK(count(divergence_over_depth(made_up::results({.seeds = 1}), "sw").svg, "fill-opacity") == 0);   // one seed has no band
}

TEST_CASE("report: heat maps print what was measured", "[sara_finetune]") {
  const run_results results = made_up::results({.low = {"sw", "ne"}});
  const figure drawn = divergence_by_language(results);
  check_sound(drawn.svg);
  const auto words = texts(drawn);
  for (const char* model : {"pretrained", "plain", "SARA"}) CHECK(holds(words, model));
  // Thousandths; plain's layer 1 and layer 2, SARA's layer 3.
  CHECK(std::count(words.begin(), words.end(), "50.0") >= 2);
  CHECK(std::count(words.begin(), words.end(), "10.0") >= 2);
  CHECK(std::count(words.begin(), words.end(), "4.0") >= 2);
  CHECK(holds(words, "60.0"));   // the scale's end

  const figure use = expert_use(results, "ne");
  check_sound(use.svg);
  const auto cells = texts(use);
  for (const char* title : {"en, pretrained", "ne, pretrained", "en, plain", "ne, plain", "en, SARA", "ne, SARA", "difference"})
    CHECK(holds(cells, title));
  // Half of the choices on one expert, in six maps of six layers; the scale names it too.
  CHECK(std::count(cells.begin(), cells.end(), "50.0") == 6 * 6 + 1);
  // 50 - 50/7 points between the languages before and under plain, nothing under SARA.
  CHECK(std::count(cells.begin(), cells.end(), "-42.9") == 2 * 6 + 1);
  CHECK(std::count(cells.begin(), cells.end(), "42.9") == 2 * 6 + 1);
  CHECK(std::count(cells.begin(), cells.end(), "0.0") == 2 * 6 * 6 + 6 * 8);
  // Experts of two seeds have nothing to do with one another: the first one's are drawn.
  run_results seeds = made_up::results({.low = {"sw", "ne"}, .seeds = 2});
  for (auto& [language, layers] : seeds.evaluations.at("plain").back().expert_use)
    for (std::vector<double>& row : layers) std::reverse(row.begin(), row.end());
  const auto of_seed = texts(expert_use(seeds, "ne"));
  CHECK(std::count(of_seed.begin(), of_seed.end(), "-42.9") == 2 * 6 + 1);
  CHECK(holds(of_seed, "Experts used by en and by ne, seed 1"));
  const pugi::xml_document whole = parsed(use.svg);
  for (const pugi::xml_node& box : whole.child("svg").children("rect")) {
    CHECK(box.attribute("y").as_double() + box.attribute("height").as_double() <= whole.child("svg").attribute("height").as_double());
  }
}

TEST_CASE("report: training curves", "[sara_finetune]") {
  run_results results = made_up::results({.seeds = 2});
  const figure drawn = training_curves(results);
  check_sound(drawn.svg);
  const auto steps = [&](const figure& of, const std::string& color, std::size_t size) {
    const auto lines = lines_of(of, color, "1.7");
    return std::count_if(lines.begin(), lines.end(), [&](const auto& line) { return line.size() == size; });
  };
  CHECK(steps(drawn, "#0072b2", 20) == 2);   // cross-entropy and divergence
  CHECK(steps(drawn, "#0072b2", 4) == 2);    // validation of two languages
  CHECK(steps(drawn, "#5f6368", 20) == 1);   // pretraining measures no divergence
  CHECK(holds(texts(drawn), "the anchors are made when pretraining ends"));

  // Seeds that stopped at different steps: the line ends with the shorter one.
  for (training_curve& curve : results.curves[1]) {
    if (curve.arm == "sara") curve.training.resize(12);
  }
  CHECK(steps(training_curves(results), "#0072b2", 12) == 2);

  // Nor do seeds of different lengths validate at the same steps, but as often.
  for (training_curve& curve : results.curves[1]) {
    for (validation_point& point : curve.validation) ++point.step, point.tokens += 500;
  }
  CHECK(steps(training_curves(results), "#0072b2", 4) == 2);
  CHECK(steps(training_curves(results), "#5f6368", 4) == 2);

  // Long runs are thinned.
  run_results one = made_up::results({.seeds = 1});
  for (training_curve& curve : one.curves[0]) {
    if (curve.arm != "sara") continue;
    curve.training.clear();
    for (int step = 1; step <= 1600; ++step)
      curve.training.push_back({.step = step, .tokens = step, .cross_entropy = 2, .divergence = not_measured});
  }
  CHECK(steps(training_curves(one), "#0072b2", 80) == 1);
}

TEST_CASE("report: nothing measured makes no broken picture", "[sara_finetune]") {
  run_results results = made_up::results({.seeds = 2});
  for (auto& [model, evaluations] : results.evaluations) {
    for (model_evaluation& evaluation : evaluations) {
      for (auto& [language, bits] : evaluation.bits_per_byte) bits = not_measured;
      for (auto& [language, d] : evaluation.divergence) {
        d.live.assign(6, not_measured);
        d.anchored.assign(6, std::numeric_limits<double>::infinity());
        d.unpaired.clear();
        d.within_high.clear();
        d.within_low.clear();
      }
      for (auto& [language, use] : evaluation.expert_use) use.assign(6, std::vector<double>(8, not_measured));
      evaluation.cloze.clear();
      evaluation.entropy.clear();
      evaluation.normalized.clear();
    }
  }
  for (auto& seed : results.curves) seed.clear();
  const std::vector<figure> figures = draw_figures(results);
  for (const figure& one : figures) check_sound(one.svg);
  const std::string page = report_page(results, figures);
  CHECK(says(page, "not measured"));
  CHECK_FALSE(says(page, ">nan"));
}

TEST_CASE("report: the page is one file, whole and escaped", "[sara_finetune]") {
  const std::string nasty = "x<script>alert(\"&'1')</script>";
  run_results results = made_up::results({.low = {"sw", nasty, "../" + nasty}});
  results.settings["path"] = "/data/<b>&\"\x01";
  results.corpus = nasty;
  const std::vector<figure> figures = draw_figures(results);
  std::set<std::string> names;
  for (const figure& one : figures) {
    CAPTURE(one.name);
    check_sound(one.svg);
    CHECK(names.insert(one.name).second);
    CHECK(one.name.find_first_of("/.<>\"& ") == std::string::npos);
  }
  CHECK(figures.size() == 3 + 1 + 3 + 1);
  names.clear();   // two languages, one word for files; and one that is called like another figure
  for (const figure& one : draw_figures(made_up::results({.low = {"a/b", "a_b", "by-language"}, .seeds = 1}))) {
    CAPTURE(one.name);
    CHECK(names.insert(one.name).second);
  }
  const std::string page = report_page(results, figures);
  CHECK_FALSE(says(page, "<script"));
  CHECK(says(page, "x&lt;script&gt;alert(&quot;&amp;&#39;1&#39;)&lt;/script&gt;"));
  CHECK(says(page, "/data/&lt;b&gt;&amp;&quot;\ufffd"));
  for (const char* outside : {"<link", "<img", "href=", "src=", "@import", "url("}) CHECK_FALSE(says(page, outside));
  CHECK(count(page, "http") == figures.size());   // the namespace's name
  CHECK(count(page, "<svg") == figures.size());
  for (std::size_t at = page.find("<svg"); at != std::string::npos; at = page.find("<svg", at + 1)) {
    check_sound(page.substr(at, page.find("</svg>", at) + 6 - at));
  }
  for (const finding& one : findings(results)) CHECK(says(page, escape(one.sentence)));
  CHECK(says(page, "<td>corpus.files[0].file</td><td>en-sw.tmx</td>"));
  CHECK(says(page, "<td>window</td><td>[2,4]</td>"));
  CHECK(count(page, "<td>corpus_name</td>") == 1);
  CHECK(count(page, "<td>illustrative</td>") == 1);
  CHECK_FALSE(says(page, "<td>corpus.name</td>"));

  // As XML, but for its doctype and the three elements of HTML that have no end.
  std::string xml = page.substr(page.find("<html"));
  for (std::size_t at = xml.find("<meta"); at != std::string::npos; at = xml.find("<meta", at + 1)) xml.insert(xml.find('>', at), "/");
  parsed(xml);
}

TEST_CASE("report: warnings are seen", "[sara_finetune]") {
  run_results results = made_up::results();
  CHECK_FALSE(says(report_page(results, {}), "class=\"warning\""));
  results.illustrative = true;
  CHECK(count(report_page(results, {}), "<p class=\"warning\">") == 1);
}

TEST_CASE("report: files are written whole, or none", "[sara_finetune]") {
  const temporary_folder folder;
  const run_results results = made_up::results();
  write_report(results, folder.path());
  const std::vector<figure> figures = draw_figures(results);
  std::size_t found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) found += entry.is_regular_file() ? 1 : 0;
  CHECK(found == figures.size() + 1);   // no temporary is left
  for (const figure& one : figures) CHECK(bytes(folder.path() / (one.name + ".svg")) == one.svg);
  CHECK(bytes(folder.path() / "report.html") == report_page(results, figures));
  write_report(results, folder.path());   // again, over the old
  CHECK(bytes(folder.path() / "report.html") == report_page(results, figures));
  CHECK(says(complaint([&] { write_report(results, folder.path() / "nowhere"); }), "nowhere"));
}
