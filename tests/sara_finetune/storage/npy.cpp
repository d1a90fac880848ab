// NumPy's files, written and read, against NumPy itself and against bytes made here.
#include "sara_finetune/storage/npy.hpp"

#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>

#include "../files.hpp"
#include "catch.hpp"
#include "damage.hpp"
#include "sara_finetune/storage/atomic_file.hpp"

namespace {

using files::complaint, files::temporary_folder;
using sara_finetune::bytes_of, sara_finetune::index_t, sara_finetune::npy_array, sara_finetune::read_file, sara_finetune::read_npy,
    sara_finetune::write_npy;

std::string npy(const std::string& dictionary, const std::string& values, char major = 1) {
  std::string bytes = "\x93NUMPY";
  bytes += {major, '\0', static_cast<char>(dictionary.size() % 256), static_cast<char>(dictionary.size() / 256)};
  if (major == 2) bytes += std::string(2, '\0');
  return bytes + dictionary + values;
}

const std::string zeros(24, '\0');

}   // namespace

TEST_CASE("npy: bit by bit there and back, in any shape", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "a.npy";
  const std::vector<index_t> shapes[] = {{2, 3, 4}, {24}, {1, 24, 1}, {24, 1, 1, 1, 1}};
  std::vector<float> data(24);
  std::iota(data.begin(), data.end(), -3.5f);
  const std::uint32_t signalling = 0x7f800001;
  std::memcpy(&data[5], &signalling, 4);
  data[6] = -0.0f;
  data[7] = std::numeric_limits<float>::denorm_min();
  for (const auto& shape : shapes) {
    write_npy(file, data, shape);
    const npy_array read = read_npy(file);
    REQUIRE(read.shape == shape);
    REQUIRE((bytes_of(read.data) == bytes_of(data)));
    const std::string bytes = read_file(file);
    REQUIRE((bytes.size() - 96) % 64 == 0);
    REQUIRE(bytes[bytes.size() - 97] == '\n');
  }
  write_npy(file, std::span(data).first(1), {});
  REQUIRE(read_npy(file).shape.empty());
  REQUIRE(read_npy(file).data == std::vector<float>{-3.5f});
  write_npy(file, {}, {0, 6, 8});
  REQUIRE(read_npy(file).shape == std::vector<index_t>{0, 6, 8});
  REQUIRE(read_npy(file).data.empty());
}

TEST_CASE("npy: data of another size than the shape is not written", "[sara_finetune]") {
  const temporary_folder folder;
  const std::vector<float> data(24);
  const auto said = [&](const std::vector<index_t>& shape) { return complaint([&] { write_npy(folder.path() / "a.npy", data, shape); }); };
  REQUIRE(said({5, 5}) == "npy: data must have the size of its shape (5, 5), but has 24 values");
  REQUIRE(said({-4, -6}) == "npy: data must have the size of its shape (-4, -6), but has 24 values");
  REQUIRE(said({index_t{1} << 62, 4, 24}) == "npy: data must have the size of its shape (4611686018427387904, 4, 24), but has 24 values");
  REQUIRE(said(std::vector<index_t>(30000, 1)) != "");
  REQUIRE(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("npy: what NumPy may write is read", "[sara_finetune]") {
  const temporary_folder folder;
  const std::string dictionaries[] = {
      "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}",
      "{\"shape\":(2,3,),\"fortran_order\":False,\"descr\":\"<f4\"}\n",
      "  { 'shape' : ( 2 , 3 ) , 'descr' : '<f4' , 'fortran_order' : False , } ",
  };
  const float values[] = {1, 2, 3, 4, 5, 6};
  for (const char major : {'\1', '\2'})
    for (const std::string& dictionary : dictionaries) {
      const npy_array read = read_npy(folder.write("a.npy", npy(dictionary, std::string(bytes_of(values)), major)));
      REQUIRE(read.shape == std::vector<index_t>{2, 3});
      REQUIRE(read.data == std::vector<float>{1, 2, 3, 4, 5, 6});
    }
}

TEST_CASE("npy: anything else is refused in a sentence", "[sara_finetune]") {
  const temporary_folder folder;
  const auto said = [&](const std::string& bytes) {
    const auto file = folder.write("a.npy", bytes);
    std::string sentence = complaint([&] { read_npy(file); });
    REQUIRE(sentence.starts_with(file.string() + ": "));
    return sentence.substr(file.string().size() + 2);
  };
  const auto with = [](const std::string& descr, const std::string& order, const std::string& shape) {
    return "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }\n";
  };
  const std::string good = with("'<f4'", "False", "(2, 3)");
  REQUIRE(complaint([&] { read_npy(folder.write("good.npy", npy(good, zeros))); }) == "");

  REQUIRE(said("") == "expected a NumPy file (.npy), found other bytes at its beginning");
  REQUIRE(said("PK\3\4") == "expected a NumPy file (.npy), found other bytes at its beginning");
  REQUIRE(said(npy(good, zeros, 3)) == "expected NPY format 1.0 or 2.0, found 3.0");
  REQUIRE(said(npy(good, zeros, '\xff')) == "expected NPY format 1.0 or 2.0, found 255.0");
  REQUIRE(said(npy(with("'<f8'", "False", "(3,)"), zeros)) == "expected 'descr' to be '<f4' (little-endian fp32), found '<f8'");
  REQUIRE(said(npy(with("'>f4'", "False", "(2, 3)"), zeros)) == "expected 'descr' to be '<f4' (little-endian fp32), found '>f4'");
  REQUIRE(said(npy(with("[('x', '<f4')]", "False", "(6,)"), zeros)).starts_with("expected 'descr' to be '<f4', found [('x', '<f4')]"));
  REQUIRE(said(npy(with("'<f4'", "True", "(2, 3)"), zeros)) == "expected C order, found 'fortran_order': True");
  REQUIRE(said(npy(good, zeros.substr(1))) == "is truncated: expected 24 bytes of values for the shape (2, 3), found 23");
  REQUIRE(said(npy(good, zeros + "x")) == "goes on after its values: expected 24 bytes of values for the shape (2, 3), found 25");
  REQUIRE(said(npy(with("'<f4'", "False", "(4611686018427387904, 4)"), zeros)) ==
          "expected a shape that memory can hold, found (4611686018427387904, 4)");
  REQUIRE(said(npy(with("'<f4'", "False", "(4611686018427387904,)"), "")) ==   // whose bytes are 0 modulo 2^64
          "expected a shape that memory can hold, found (4611686018427387904,)");
  REQUIRE(said(npy(with("'<f4'", "False", "(2305843009213693951,)"), zeros)) ==
          "is truncated: expected 9223372036854775804 bytes of values for the shape (2305843009213693951,), found 24");
  REQUIRE(said(npy(with("'<f4'", "False", "(99999999999999999999,)"), zeros)) == "expected extents of 64 bits, found a larger one");
  REQUIRE(said(npy(with("'<f4'", "False", "(-2, -3)"), zeros)) == "expected an extent in the header, found -2, -3), }\n");
  REQUIRE(said(npy("{'descr': '<f4', 'shape': (2, 3)}", zeros)) ==
          "expected 'descr', 'fortran_order' and 'shape' in the header, found no 'fortran_order'");
  REQUIRE(said(npy("{'descr': '<f4', 'descr': '<f4'}", zeros)) ==
          "expected each of 'descr', 'fortran_order' and 'shape' once in the header, found 'descr'");
  REQUIRE(said(npy(good + "junk", zeros)) == "expected nothing after the header's '}', found junk");
  REQUIRE(said(npy("{'descr': '<f4'", zeros)) == "expected } in the header, found its end");
  REQUIRE(said(npy("", "")) == "expected { in the header, found its end");
  REQUIRE(said(npy(good, zeros).substr(0, 7)) == "is truncated: it ends before its format's version");
  REQUIRE(said(npy(good, zeros).substr(0, 9)) == "is truncated: it ends before its header's length");
  REQUIRE(said(npy(good, "").substr(0, 30)) == "is truncated: expected a header of " + std::to_string(good.size()) + " bytes, found 20");
  REQUIRE(said(std::string("\x93NUMPY\2\0\xff\xff\xff\xff", 12)) == "is truncated: expected a header of 4294967295 bytes, found 0");
}

TEST_CASE("npy: no damage does more than throw", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "a.npy";
  const std::vector<float> data(12, 0.25f);
  write_npy(file, data, {2, 2, 3});
  int refused = 0, read = 0;
  damage::each(file, read_file(file), 4000, [&](const std::string& what) {
    INFO(what);
    try {
      const npy_array array = read_npy(file);   // NPY has no checksum: changed values are read as they are
      ++read;
      const bool cut = what.starts_with("cut");
      if (cut || array.data.size() != 12) FAIL("read what is not there");
    } catch (const std::runtime_error&) {
      ++refused;
    }
  });
  REQUIRE(refused > 1000);
  REQUIRE(read > 200);
}

TEST_CASE("npy: NumPy reads what is written, and the other way round", "[sara_finetune]") {
  const auto python = [](const std::string& program) { return std::system(("python3 -c \"" + program + "\" 2>/dev/null").c_str()); };
  if (python("import numpy") != 0) {
    WARN("no python3 with numpy here");
    return;
  }
  const temporary_folder folder;
  const std::string ours = (folder.path() / "ours.npy").string(), theirs = (folder.path() / "theirs.npy").string();
  std::vector<float> data(24);
  std::iota(data.begin(), data.end(), 0.0f);
  write_npy(ours, data, {2, 3, 4});
  REQUIRE(python("import numpy as n; a = n.load('" + ours + "'); assert a.dtype == n.float32 and a.flags['C_CONTIGUOUS'] and " +
                 "n.array_equal(a, n.arange(24, dtype=n.float32).reshape(2, 3, 4)); n.save('" + theirs + "', a[:, 1:] * 0.5)") == 0);
  const npy_array read = read_npy(theirs);
  REQUIRE(read.shape == std::vector<index_t>{2, 2, 4});
  REQUIRE(read.data == std::vector<float>{2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 8, 8.5, 9, 9.5, 10, 10.5, 11, 11.5});
  REQUIRE(python("import numpy as n; n.save('" + theirs + "', n.asfortranarray(n.ones((2, 3), n.float32)))") == 0);
  REQUIRE(complaint([&] { read_npy(theirs); }) == theirs + ": expected C order, found 'fortran_order': True");
}
