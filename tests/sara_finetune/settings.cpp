// Flags, settings.json, and what an arm is.
#include "sara_finetune/settings.hpp"

#include "catch.hpp"

namespace {

using namespace sara_finetune;

settings usual() {
  settings s;
  s.parallel = {"/text/en-sw.tmx"};
  return s;
}

}   // namespace

TEST_CASE("settings: what is written comes back, every field", "[settings]") {
  settings s = usual();
  s.corpus = "a corpus";
  s.illustrative = true;
  s.text = {"en=/text/en.txt"};
  s.high = "fr";
  s.shape = {.vocabulary = 500, .layers = 4, .width = 32, .heads = 2, .experts = 5, .chosen = 3, .hidden = 7, .context = 50};
  s.sequences = 9;
  s.micro_batches = 3;
  s.weight_decay = 0.25;
  s.clip = 2;
  s.warmup = 0.125;
  s.balance = 0.5;
  s.pretrain_tokens = 11;
  s.pretrain_rate = 0.1;
  s.low_share = 0.2;
  s.low_sentences = 0.3;
  s.validations = 5;
  s.anchors_keep = 0.75;
  s.finetune_tokens = 12;
  s.finetune_rate = 1e-3;
  s.rehearsal = 0.4;
  s.lambda = 1.25;
  s.window_first = 1;
  s.window_last = 3;
  s.arms = {"sara+lambda=5"};
  s.seed = 0x7fff'ffff'ffff'ff00;
  s.seeds = 4;
  s.part = "validation";
  s.threads = 3;
  s.save_every = 17;
  const nlohmann::json json = s;
  // Each value differs from its default: what to_json or from_json forgets shows.
  const nlohmann::json defaults = settings{};
  for (const auto& [name, value] : json.items()) {
    INFO(name);
    CHECK(value != defaults[name]);
  }
  settings back;
  from_json(nlohmann::json::parse(json.dump()), back);
  CHECK(nlohmann::json(back) == json);
  CHECK(back.seed == s.seed);
  CHECK(back.shape == s.shape);
  CHECK(back.window_last == 3);
}

TEST_CASE("settings: a file that is not theirs is one sentence", "[settings]") {
  nlohmann::json json = usual();
  settings to;
  json.erase("lambda");
  CHECK_THROWS_WITH(from_json(json, to), Catch::Contains("lambda"));
  json["lambda"] = "much";
  CHECK_THROWS_WITH(from_json(json, to), Catch::Contains("lambda") && Catch::Contains("much"));
  CHECK_THROWS_WITH(from_json(nlohmann::json::array(), to), Catch::Contains("must be a whole number"));
}

TEST_CASE("settings: each flag that makes no sense is named", "[settings]") {
  usual().check();
  const auto complaint = [](auto&& change) {
    settings s = usual();
    change(s);
    try {
      s.check();
    } catch (const std::runtime_error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(complaint([](settings& s) { s.parallel.clear(); }).find("--parallel") != std::string::npos);
  CHECK(complaint([](settings& s) { s.sequences = 0; }) == "--sequences must be at least 1, but is 0");
  CHECK(complaint([](settings& s) { s.rehearsal = 1; }).find("--rehearsal") != std::string::npos);
  CHECK(complaint([](settings& s) { s.lambda = 0; }).find("--lambda") != std::string::npos);
  CHECK(complaint([](settings& s) { s.lambda = std::numeric_limits<double>::quiet_NaN(); }).find("--lambda") != std::string::npos);
  CHECK(complaint([](settings& s) { s.window_last = 6; }).find("0-5") != std::string::npos);
  CHECK(complaint([](settings& s) { s.arms = {"plain", "plain"}; }).find("twice") != std::string::npos);
  CHECK(complaint([](settings& s) { s.arms = {"salsa"}; }).find("salsa") != std::string::npos);
  CHECK(complaint([](settings& s) { s.part = "training"; }).find("--part") != std::string::npos);
  CHECK(complaint([](settings& s) { s.shape.width = 95; }).find("width") != std::string::npos);
  CHECK(complaint([](settings& s) { s.anchors_keep = 0; }).find("--anchors-keep") != std::string::npos);
  CHECK(complaint([](settings& s) { s.seed = -1; }) == "--seed must be at least 0, but is -1");
  CHECK(complaint([](settings& s) { s.seeds = 0; }).find("--seeds") != std::string::npos);
}

TEST_CASE("settings: a run keeps what its results depend on", "[settings]") {
  const settings old = usual();
  settings now = old;
  now.threads = 7;
  now.save_every = 1;
  now.arms = {"sara"};
  now.seeds = 5;
  check_same_run(old, now, "settings.json");
  now.lambda = 3;
  CHECK_THROWS_WITH(check_same_run(old, now, "run/settings.json"),
                    Catch::Contains("run/settings.json") && Catch::Contains("lambda 1.5") && Catch::Contains("3.0"));
}

TEST_CASE("arms: names, and what follows them", "[settings]") {
  const settings s = usual();
  CHECK(parse_arm("plain", s, 1).lambda == 0);
  const arm sara = parse_arm("sara", s, 1);
  CHECK(sara.lambda == 1.5);
  CHECK(sara.window_first == 2);
  CHECK(sara.window_last == 4);
  CHECK(sara.rehearsal == 0.3);
  CHECK_FALSE(sara.shuffled);
  CHECK(parse_arm("shuffled", s, 1).shuffled);
  CHECK(parse_arm("all-layers", s, 1).window_first == 0);
  CHECK(parse_arm("all-layers", s, 1).window_last == 5);
  const arm other = parse_arm("sara+lambda=5+window=0-2+rehearsal=0", s, 1);
  CHECK(other.name == "sara+lambda=5+window=0-2+rehearsal=0");
  CHECK(other.lambda == 5);
  CHECK(other.window_first == 0);
  CHECK(other.window_last == 2);
  CHECK(other.rehearsal == 0);
  bool seen[6] = {};
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const arm random = parse_arm("random-window", s, seed);
    CHECK(random.window_last - random.window_first == 2);
    CHECK(random.window_last < 6);
    seen[random.window_first] = true;
  }
  CHECK((seen[0] && seen[1] && !seen[2] && seen[3]));
  CHECK_THROWS_WITH(parse_arm("sara+lambda=x", s, 1), Catch::Contains("lambda") && Catch::Contains("'x'"));
  CHECK_THROWS_WITH(parse_arm("sara+window=0-99999999999", s, 1), Catch::Contains("out of range"));
  CHECK_THROWS_WITH(parse_arm("sara+lambda=0", s, 1), Catch::Contains("above 0"));
  CHECK_THROWS_WITH(parse_arm("plain+lambda=1", s, 1), Catch::Contains("plain has none"));
  CHECK_THROWS_WITH(parse_arm("sara+window=4-6", s, 1), Catch::Contains("0-5") && Catch::Contains("4-6"));
  CHECK_THROWS_WITH(parse_arm("sara+window=3", s, 1), Catch::Contains("FIRST-LAST"));
  CHECK_THROWS_WITH(parse_arm("sara+colour=red", s, 1), Catch::Contains("colour=red"));
  CHECK_THROWS_WITH(parse_arm("sara+", s, 1), Catch::Contains("after a '+'"));
}
