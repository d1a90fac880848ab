// The anchors' table and its two files.
#include "sara_finetune/storage/anchors.hpp"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "../files.hpp"
#include "catch.hpp"
#include "damage.hpp"
#include "limits.hpp"
#include "sara_finetune/storage/atomic_file.hpp"
#include "sara_finetune/storage/npy.hpp"

namespace {

using namespace sara_finetune;
using files::complaint, files::temporary_folder;
using nlohmann::json;

anchor_table small() {
  anchor_table anchors{
      .layers = 2, .experts = 4, .keys = {"en-sw.tmx 7", "en-sw.tmx 8", "kiswahili – na ñ"}, .histograms = {}, .model = "0123456789abcdef"};
  for (int row = 0; row < 6; ++row) {
    const float shift = 0.01f * static_cast<float>(row);
    for (const float share : {0.1f + shift, 0.2f - shift, 0.3f, 0.4f}) anchors.histograms.push_back(share);
  }
  return anchors;
}

bool same(const anchor_table& a, const anchor_table& b) {
  return a.layers == b.layers && a.experts == b.experts && a.keys == b.keys && bytes_of(a.histograms) == bytes_of(b.histograms) &&
         a.model == b.model;
}

}   // namespace

TEST_CASE("anchors: written, they are read again", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "anchors.npy";
  write_anchors(file, small());
  REQUIRE(same(read_anchors(file), small()));
  REQUIRE(read_npy(file).shape == std::vector<index_t>{3, 2, 4});
  const json about = json::parse(read_file(folder.path() / "anchors.json"));
  REQUIRE(about["keys"] == json(small().keys));
  REQUIRE(about["model"] == "0123456789abcdef");
  REQUIRE(about["token_rule"].get<std::string>().starts_with("BOS and"));

  anchor_table none = small();
  none.keys.clear();
  none.histograms.clear();
  write_anchors(file, none);
  REQUIRE(same(read_anchors(file), none));
}

TEST_CASE("anchors: a pair's row is found by its key, -1 without one", "[sara_finetune]") {
  const std::vector<std::string> wanted = {"en-sw.tmx 8", "en-sw.tmx 9", "en-sw.tmx 7", "en-sw.tmx 8", ""};
  REQUIRE(small().rows_for(wanted) == std::vector<std::int32_t>{1, -1, 0, 1, -1});
  REQUIRE(small().rows_for({}).empty());
  anchor_table twice = small();
  twice.keys[2] = twice.keys[0];
  REQUIRE(complaint([&] { twice.rows_for(wanted); }) == "anchors: expected each pair's key once, found en-sw.tmx 7 twice");
}

TEST_CASE("anchors: a table that is none is not written", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "a.npy";
  const auto said = [&](const auto& change) {
    anchor_table anchors = small();
    change(anchors);
    const std::string sentence = complaint([&] { write_anchors(file, anchors); });
    REQUIRE(sentence.starts_with(file.string() + ": "));
    return sentence.substr(file.string().size() + 2);
  };
  REQUIRE(said([](anchor_table& a) { a.keys[1] = a.keys[0]; }) == "expected each pair's key once, found en-sw.tmx 7 twice");
  REQUIRE(said([](anchor_table& a) { a.histograms.pop_back(); }) ==
          "expected histograms of [3 keys, 2 layers, 4 experts], found 23 values");
  REQUIRE(said([](anchor_table& a) { a.layers = index_t{1} << 62; }) ==
          "expected histograms of [3 keys, 4611686018427387904 layers, 4 experts], found 24 values");
  REQUIRE(said([](anchor_table& a) { a.experts = 0; }) == "expected anchors of at least one layer and one expert, found 2 and 0");
  // The first row's sum may be off by 1e-4, not more.
  REQUIRE(said([](anchor_table& a) { a.histograms[3] += 1.5e-4f; }) ==
          "expected a distribution in the row of en-sw.tmx 7 at layer 0, found the sum 1.000150");
  REQUIRE(said([](anchor_table& a) { a.histograms[12] = std::numeric_limits<float>::quiet_NaN(); }) ==
          "expected a distribution in the row of en-sw.tmx 8 at layer 1, found nan for expert 0");
  REQUIRE(said([](anchor_table& a) { a.histograms[22] = std::numeric_limits<float>::infinity(); }) ==
          "expected a distribution in the row of kiswahili – na ñ at layer 1, found inf for expert 2");
  REQUIRE(said([](anchor_table& a) { a.histograms[1] = -0.1f; }) ==
          "expected a distribution in the row of en-sw.tmx 7 at layer 0, found -0.100000 for expert 1");
  anchor_table bytes = small();
  bytes.keys[0] = "\xff";
  REQUIRE(complaint([&] { write_anchors(file, bytes); }) ==
          (folder.path() / "a.json").string() + ": cannot be written: expected UTF-8 keys and model, found other bytes");
  REQUIRE(complaint([&] { write_anchors(folder.path() / "a.json", small()); }) ==
          (folder.path() / "a.json").string() + ": expected a name for anchors that ends in .npy");
  REQUIRE(std::filesystem::is_empty(folder.path()));

  anchor_table near = small();
  near.histograms[3] += 0.5e-4f;
  REQUIRE(complaint([&] { write_anchors(file, near); }) == "");
}

TEST_CASE("anchors: of another model they are refused", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "a.npy";
  write_anchors(file, small());
  const model_shape shape{.layers = 2, .experts = 4};
  REQUIRE(same(read_anchors(file, shape, "0123456789abcdef"), small()));
  const std::string start = file.string() + ": anchors of another model: of ";
  REQUIRE(complaint([&] { read_anchors(file, shape, "fedcba9876543210"); }) ==
          start + "parameters with the fingerprint 0123456789abcdef, but this one is of those with fedcba9876543210");
  REQUIRE(complaint([&] { read_anchors(file, {.layers = 3, .experts = 4}, small().model); }) ==
          start + "2 layers and 4 experts, but this one is of 3 layers and 4 experts");
  REQUIRE(complaint([&] { read_anchors(file, {.layers = 2, .experts = 8}, small().model); }) ==
          start + "2 layers and 4 experts, but this one is of 2 layers and 8 experts");
}

TEST_CASE("anchors: files that do not belong together or are none are refused in a sentence", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "a.npy", description = folder.path() / "a.json";
  write_anchors(file, small());
  const json good = json::parse(read_file(description));
  const auto said = [&](const auto& change) {
    json about = good;
    change(about);
    folder.write("a.json", about.dump());
    std::string sentence = complaint([&] { read_anchors(file); });
    REQUIRE(sentence.starts_with(folder.path().string() + "/a."));
    return sentence.substr(folder.path().string().size() + 1);
  };
  REQUIRE(said([](json& a) { a = json::array(); }) == "a.json: expected a JSON object, found other bytes");
  REQUIRE(said([](json& a) { a.erase("format"); }) == "a.json: expected the text \"format\", found none");
  REQUIRE(said([](json& a) { a["format"] = "foreign"; }) == "a.json: expected \"sara_finetune anchors 1\", found \"foreign\"");
  REQUIRE(said([](json& a) { a["token_rule"] = "words"; }).ends_with("found \"words\""));
  REQUIRE(said([](json& a) { a["layers"] = "two"; }) == "a.json: expected a whole number \"layers\", found \"two\"");
  REQUIRE(said([](json& a) { a["experts"] = 4.5; }) == "a.json: expected a whole number \"experts\", found 4.5");
  REQUIRE(said([](json& a) { a.erase("experts"); }) == "a.json: expected a whole number \"experts\", found none");
  REQUIRE(said([](json& a) { a["keys"] = {"a", 1}; }) == "a.json: expected a list of texts \"keys\", found array");
  REQUIRE(said([](json& a) { a["keys"].erase(0); }) == "a.json: expected 3 keys, one a sample, found 2");
  REQUIRE(said([](json& a) { a["layers"] = 4; }) ==
          "a.npy: expected the shape [3, 4, 4] that " + description.string() + " says, found [3, 2, 4]");
  for (const char* name : {"model", "checksum"})
    REQUIRE(said([&](json& a) { a[name] = "another"; }) ==
            "a.npy: expected what " + description.string() +
                " was written with, found another checksum: one of the two is of another run, or damaged");
  folder.write("a.json", good.dump());
  REQUIRE(complaint([&] { read_anchors(file); }) == "");

  anchor_table other = small();
  std::swap(other.histograms[0], other.histograms[1]);
  write_npy(file, other.histograms, {3, 2, 4});
  REQUIRE(complaint([&] { read_anchors(file); }).find("found another checksum") != std::string::npos);
  std::filesystem::remove(description);
  REQUIRE(complaint([&] { read_anchors(file); }) == description.string() + ": cannot be read: No such file or directory");
}

TEST_CASE("anchors: a full disk leaves both old files", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "a.npy";
  write_anchors(file, small());
  anchor_table larger = small();
  larger.keys[1] = std::string(5000, 'k');   // the values still fit, the description does not
  std::swap(larger.histograms[0], larger.histograms[1]);
  {
    const limits::file_size limit(2000);
    REQUIRE(complaint([&] { write_anchors(file, larger); }) ==
            (folder.path() / "a.json").string() + ": cannot be written: writing: File too large");
  }
  REQUIRE(same(read_anchors(file), small()));
  REQUIRE(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 2);
}

TEST_CASE("anchors: damage is refused or changes nothing", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "a.npy", description = folder.path() / "a.json";
  write_anchors(file, small());
  for (const auto& damaged : {file, description}) {
    int refused = 0;
    damage::each(damaged, read_file(damaged), 3000, [&](const std::string& what) {
      INFO(damaged << " " << what);
      try {
        if (!same(read_anchors(file), small())) FAIL("read what was not written");
      } catch (const std::runtime_error&) {
        ++refused;
      }
    });
    REQUIRE(refused > 2000);
  }
}

TEST_CASE("anchors: a fingerprint is FNV-1a of the values' bytes", "[sara_finetune]") {
  // The first three are of the algorithm's authors (draft-eastlake-fnv, test vectors).
  REQUIRE(hexadecimal(fnv1a("")) == "cbf29ce484222325");
  REQUIRE(hexadecimal(fnv1a("a")) == "af63dc4c8601ec8c");
  REQUIRE(hexadecimal(fnv1a("foobar")) == "85944171f73967e8");
  REQUIRE(hexadecimal(fnv1a("bar", fnv1a("foo"))) == "85944171f73967e8");
  const std::string bytes("\0\0\x80\x3f\0\0\0\x80", 8);
  const float values[] = {1.0f, -0.0f}, positive[] = {1.0f, 0.0f};
  REQUIRE(fingerprint(values) == hexadecimal(fnv1a(bytes)));
  REQUIRE(fingerprint(values) != fingerprint(positive));
}
