// Checkpoints: every bit there and back, or a sentence.
#include "sara_finetune/storage/checkpoint.hpp"

#include <cstring>
#include <limits>

#include "../files.hpp"
#include "catch.hpp"
#include "damage.hpp"
#include "limits.hpp"
#include "sara_finetune/storage/atomic_file.hpp"
#include "sara_finetune/storage/fingerprint.hpp"

namespace {

using namespace sara_finetune;
using files::complaint, files::temporary_folder;
using nlohmann::json;

float of_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

checkpoint small() {
  return {.about = {{"shape", model_shape{}}, {"step", 12}, {"rate", 0.1}, {"seed", std::numeric_limits<std::uint64_t>::max()}},
          .arrays = {{"parameters", {1, -2.5f, of_bits(0x7fc12345), of_bits(0xff800001), -0.0f, of_bits(1), of_bits(0x807fffff)}},
                     {"mean", {}},
                     {"square", {3}}}};
}

bool same(const checkpoint& a, const checkpoint& b) {
  if (a.about != b.about || a.arrays.size() != b.arrays.size()) return false;
  for (const auto& [name, values] : a.arrays)
    if (!b.arrays.contains(name) || bytes_of(values) != bytes_of(b.arrays.at(name))) return false;
  return true;
}

std::string word(std::uint64_t number) { return std::string(reinterpret_cast<const char*>(&number), 8); }

// A file with this header whose checksum is right.
std::string with_header(const std::string& header, const std::string& values, std::uint64_t header_size) {
  const std::string bytes = "sara_finetune checkpoint 1\n" + word(header_size) + header + values;
  return bytes + word(fnv1a(bytes));
}
std::string with_header(const std::string& header, const std::string& values) { return with_header(header, values, header.size()); }

}   // namespace

TEST_CASE("checkpoint: every bit there and back", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "a.checkpoint";
  write_checkpoint(file, small());
  const checkpoint read = read_checkpoint(file);
  REQUIRE(same(read, small()));
  REQUIRE(read.about["seed"].get<std::uint64_t>() == std::numeric_limits<std::uint64_t>::max());
  REQUIRE(read.about["rate"].get<double>() == 0.1);

  const std::string bytes = read_file(file);
  write_checkpoint(file, read);
  REQUIRE(read_file(file) == bytes);
  write_checkpoint(file, {});
  REQUIRE(same(read_checkpoint(file), {}));
}

TEST_CASE("checkpoint: what cannot be read is refused in a sentence", "[sara_finetune]") {
  const temporary_folder folder;
  const auto said = [&](const std::string& bytes) {
    const auto file = folder.write("a", bytes);
    const std::string sentence = complaint([&] { read_checkpoint(file); });
    REQUIRE(sentence.starts_with(file.string() + ": "));
    return sentence.substr(file.string().size() + 2);
  };
  const std::string foreign = "expected a checkpoint of sara_finetune, found other bytes at its beginning";
  REQUIRE(said("") == foreign);
  REQUIRE(said("\x93NUMPY\1") == foreign);
  REQUIRE(said("sara_finetune check") == "is truncated: it ends in its first line");
  REQUIRE(said("sara_finetune checkpoint 1") == "is truncated: it ends in its first line");
  REQUIRE(said("sara_finetune checkpoint 2\n" + word(0)) == "expected a checkpoint of version 1, found version 2");
  REQUIRE(said("sara_finetune checkpoint 10\n" + word(0)) == "expected a checkpoint of version 1, found version 10");
  REQUIRE(said("sara_finetune checkpoint 1\n" + word(0)) == "is truncated: expected at least 43 bytes, found 35");

  const std::string empty = R"({"about":{},"arrays":[]})", one = R"({"about":{},"arrays":[["x",1]]})";
  REQUIRE(complaint([&] { read_checkpoint(folder.write("good", with_header(one, "1234"))); }) == "");
  REQUIRE(said(with_header(empty, "more")) == "goes on after its end: expected 67 bytes, found 71");
  REQUIRE(said(with_header(one, "1234").replace(69, 1, "x")).starts_with("is damaged: expected the checksum "));
  REQUIRE(said(with_header(one, "123")) == "is truncated or damaged: expected 1 values of x, found 0");
  REQUIRE(said(with_header(one, "1234", 48)) == "is truncated or damaged: expected a header of 48 bytes, found 35");
  const std::string truncated_header = "is truncated or damaged: expected a header of ";
  for (const std::uint64_t absurd : {std::uint64_t{1} << 40, std::uint64_t{1} << 63, ~std::uint64_t{0}})
    REQUIRE(said(with_header(one, "1234", absurd)) == truncated_header + std::to_string(absurd) + " bytes, found 35");
  for (const char* absurd : {"1073741824", "1099511627776", "4611686018427387904", "4611686018427387905", "18446744073709551615"})
    REQUIRE(said(with_header(R"({"about":{},"arrays":[["x",)" + std::string(absurd) + R"(]]})", "1234")) ==
            "is truncated or damaged: expected " + std::string(absurd) + " values of x, found 1");

  const std::string no_header = "is damaged: its header is not a checkpoint's";
  REQUIRE(said(with_header("{", "")) == no_header);
  REQUIRE(said(with_header("[]", "")) == no_header);
  REQUIRE(said(with_header(R"({"arrays":[]})", "")) == no_header);
  REQUIRE(said(with_header(R"({"about":{}})", "")) == "is damaged: expected a list \"arrays\" in its header");
  for (const char* entry : {"1", R"(["x"])", R"(["x",-1])", R"(["x",1.0])", R"([1,1])", R"(["x",1e300])"})
    REQUIRE(said(with_header(R"({"about":{},"arrays":[)" + std::string(entry) + R"(]})", "1234")) ==
            "is damaged: expected names and sizes in its header's \"arrays\"");
  REQUIRE(said(with_header(R"({"about":{},"arrays":[["x",0],["x",1]]})", "1234")) == "is damaged: its header lists x twice");
  REQUIRE(complaint([&] { read_checkpoint(folder.path() / "none"); }) ==
          (folder.path() / "none").string() + ": cannot be read: No such file or directory");
}

TEST_CASE("checkpoint: a header that is nested a million deep is read or refused", "[sara_finetune]") {
  const temporary_folder folder;
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  const auto file = folder.write("a", with_header(R"({"about":)" + deep + R"(,"arrays":[]})", ""));
  REQUIRE(complaint([&] { read_checkpoint(file); }) == "");
  folder.write("a", with_header(R"({"about":{},"arrays":[)" + deep + R"(]})", ""));
  REQUIRE(complaint([&] { read_checkpoint(file); }) != "");
}

TEST_CASE("checkpoint: every damage is refused", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "a";
  write_checkpoint(file, small());
  const std::string whole = read_file(file);
  int refused = 0, unharmed = 0;
  damage::each(file, whole, 4000, [&](const std::string& what) {
    INFO(what);
    try {
      const checkpoint read = read_checkpoint(file);
      if (read_file(file) != whole || !same(read, small())) FAIL("read what was not written");
      ++unharmed;   // a byte was changed to what it was
    } catch (const std::runtime_error&) {
      ++refused;
    }
  });
  REQUIRE(refused > 4000);
  REQUIRE(unharmed < 50);
}

TEST_CASE("checkpoint: the old one survives what cannot be written", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "a";
  write_checkpoint(file, small());
  checkpoint larger = small();
  larger.arrays["parameters"].resize(5000);
  {
    const limits::file_size limit(4096);
    REQUIRE(complaint([&] { write_checkpoint(file, larger); }) == file.string() + ": cannot be written: writing: File too large");
  }
  larger.about["name"] = "\xff";
  REQUIRE(complaint([&] { write_checkpoint(file, larger); }) ==
          file.string() + ": cannot be written: expected UTF-8 in what the checkpoint says about itself, found other bytes");
  REQUIRE(same(read_checkpoint(file), small()));
}

TEST_CASE("checkpoint: another shape is refused by the extent that differs", "[sara_finetune]") {
  const model_shape shape{.width = 64, .heads = 2};
  const checkpoint of{.about = {{"shape", shape}}};
  REQUIRE(shape_of(of, "F") == shape);
  REQUIRE(complaint([&] { check_shape(of, "F", shape); }) == "");
  REQUIRE(complaint([&] { check_shape(of, "F", {}); }) == "checkpoint F is of a model of width 64, but width 96 is asked for");
  for (const auto& [name, extent] : shape_extents)
    for (const int change : {-1, 1}) {
      model_shape asked = shape;
      asked.*extent += change;
      const std::string found = std::string(name) + " ";
      REQUIRE(complaint([&] { check_shape(of, "F", asked); }) == "checkpoint F is of a model of " + found + std::to_string(shape.*extent) +
                                                                     ", but " + found + std::to_string(asked.*extent) + " is asked for");
    }
}

TEST_CASE("checkpoint: a shape that is none is refused", "[sara_finetune]") {
  const auto said = [](const json& about) { return complaint([&] { shape_of({.about = about}, "F"); }); };
  const auto with = [](const char* name, const json& value) {
    json about = {{"shape", model_shape{}}};
    about["shape"][name] = value;
    return about;
  };
  REQUIRE(said(json::object()) == "F: expected a checkpoint of a model, found one without a shape");
  REQUIRE(said(json(3)) == "F: expected a checkpoint of a model, found one without a shape");
  REQUIRE(said({{"shape", 3}}) == "F: model shape: vocabulary must be a whole number, but is absent");
  REQUIRE(said(with("width", 96.5)) == "F: model shape: width must be a whole number, but is 96.5");
  REQUIRE(said(with("width", "96")) == "F: model shape: width must be a whole number, but is \"96\"");
  REQUIRE(said(with("width", 4294967392)) == "F: model shape: width must be a whole number, but is 4294967392");
  REQUIRE(said(with("width", 18446744073709551615u)) == "F: model shape: width must be a whole number, but is 18446744073709551615");
  REQUIRE(said(with("hidden", 0)) == "F: model shape: hidden must be at least 1, but is 0");
  // Every extent is read: one that were forgotten would keep its default.
  const model_shape all{.vocabulary = 10, .layers = 2, .width = 12, .heads = 3, .experts = 5, .chosen = 4, .hidden = 7, .context = 9};
  REQUIRE(json(all).get<model_shape>() == all);
}

TEST_CASE("checkpoint: an array is there in its size or refused", "[sara_finetune]") {
  const checkpoint from = small();
  REQUIRE(array_of(from, "F", "square", 1) == std::vector<float>{3});
  REQUIRE(complaint([&] { array_of(from, "F", "square", 2); }) == "F: expected 2 values of \"square\", found 1");
  REQUIRE(complaint([&] { array_of(from, "F", "cube", 2); }) == "F: expected an array \"cube\", found none");
}
