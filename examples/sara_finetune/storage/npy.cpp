#include "npy.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>

#include "atomic_file.hpp"

namespace sara_finetune {
namespace {

constexpr std::string_view magic = "\x93NUMPY";

std::string text_of(const std::vector<index_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

// False on overflow, and for a negative extent.
bool product_of(const std::vector<index_t>& shape, index_t& product) {
  product = 1;
  for (const index_t extent : shape)
    if (extent < 0 || __builtin_mul_overflow(product, extent, &product)) return false;
  return product <= std::numeric_limits<index_t>::max() / 4;
}

// The header, a Python dictionary like {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.
class header_reader {
 public:
  header_reader(const std::filesystem::path& file, std::string_view text) : file_(file), rest_(text) {}

  std::vector<index_t> shape() {
    std::vector<index_t> found;
    bool has_shape = false, has_descr = false, has_order = false;
    expect("{");
    while (!take("}")) {
      const std::string key = quoted();
      expect(":");
      if (key == "descr" && !has_descr) {
        has_descr = true;
        skip_white();
        const std::string_view from = rest_;
        if (!take("'") && !take("\"")) refuse("expected 'descr' to be '<f4', found " + std::string(from.substr(0, 40)));
        rest_ = from;
        if (const std::string type = quoted(); type != "<f4")
          refuse("expected 'descr' to be '<f4' (little-endian fp32), found '" + type + "'");
      } else if (key == "fortran_order" && !has_order) {
        has_order = true;
        if (take("True")) refuse("expected C order, found 'fortran_order': True");
        expect("False");
      } else if (key == "shape" && !has_shape) {
        has_shape = true;
        found = tuple();
      } else {
        refuse("expected each of 'descr', 'fortran_order' and 'shape' once in the header, found '" + key + "'");
      }
      if (!take(",")) {
        expect("}");
        break;
      }
    }
    skip_white();
    if (!rest_.empty()) refuse("expected nothing after the header's '}', found " + std::string(rest_.substr(0, 40)));
    if (!has_descr || !has_order || !has_shape)
      refuse(std::string("expected 'descr', 'fortran_order' and 'shape' in the header, found no '") +
             (!has_descr   ? "descr"
              : !has_order ? "fortran_order"
                           : "shape") +
             "'");
    return found;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const { throw std::runtime_error(file_.string() + ": " + what); }

  void skip_white() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size())); }
  bool take(std::string_view token) {
    skip_white();
    const bool there = rest_.starts_with(token);
    if (there) rest_.remove_prefix(token.size());
    return there;
  }
  void expect(std::string_view token) {
    if (!take(token))
      refuse("expected " + std::string(token) + " in the header, found " + (rest_.empty() ? "its end" : std::string(rest_.substr(0, 40))));
  }
  std::string quoted() {
    const char quote = take("'") ? '\'' : '"';
    if (quote == '"') expect("\"");
    const std::size_t end = rest_.find(quote);
    if (end == std::string_view::npos) refuse("expected a closing quote in the header, found its end");
    const std::string text(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return text;
  }
  std::vector<index_t> tuple() {
    std::vector<index_t> all;
    expect("(");
    while (!take(")")) {
      index_t extent = 0;
      skip_white();
      if (rest_.empty() || rest_[0] < '0' || rest_[0] > '9') expect("an extent");
      for (; !rest_.empty() && rest_[0] >= '0' && rest_[0] <= '9'; rest_.remove_prefix(1))
        if (__builtin_mul_overflow(extent, 10, &extent) || __builtin_add_overflow(extent, rest_[0] - '0', &extent))
          refuse("expected extents of 64 bits, found a larger one");
      all.push_back(extent);
      if (!take(",")) {
        expect(")");
        break;
      }
    }
    return all;
  }

  const std::filesystem::path& file_;
  std::string_view rest_;
};

}   // namespace

std::string npy_header(std::size_t values, const std::vector<index_t>& shape) {
  index_t product;
  if (!product_of(shape, product) || static_cast<std::size_t>(product) != values)
    throw std::runtime_error("npy: data must have the size of its shape " + text_of(shape) + ", but has " + std::to_string(values) +
                             " values");
  std::string dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': " + text_of(shape) + ", }";
  constexpr std::size_t before = magic.size() + 4, aligned_to = 64;   // so that the values may be mapped
  dictionary.append(aligned_to - 1 - (before + dictionary.size()) % aligned_to, ' ');
  dictionary += '\n';
  if (dictionary.size() > std::numeric_limits<std::uint16_t>::max())
    throw std::runtime_error("npy: the shape must fit into a header of 65535 bytes, but has " + std::to_string(shape.size()) + " extents");
  std::string header(magic);
  header += {'\1', '\0', static_cast<char>(dictionary.size() & 0xff), static_cast<char>(dictionary.size() >> 8)};
  return header + dictionary;
}

void write_npy(const std::filesystem::path& file, std::span<const float> data, const std::vector<index_t>& shape) {
  const std::string header = npy_header(data.size(), shape);
  const std::string_view parts[] = {header, bytes_of(data)};
  write_file(file, parts);
}

npy_array read_npy(const std::filesystem::path& file) {
  const std::string bytes = read_file(file);
  const auto refuse = [&](const std::string& what) { throw std::runtime_error(file.string() + ": " + what); };
  const auto byte = [&](std::size_t at) { return std::size_t{static_cast<unsigned char>(bytes[at])}; };
  if (!bytes.starts_with(magic)) refuse("expected a NumPy file (.npy), found other bytes at its beginning");
  if (bytes.size() < magic.size() + 2) refuse("is truncated: it ends before its format's version");
  const std::size_t major = byte(6), minor = byte(7), length_bytes = major == 1 ? 2 : 4;
  if ((major != 1 && major != 2) || minor != 0)
    refuse("expected NPY format 1.0 or 2.0, found " + std::to_string(major) + "." + std::to_string(minor));
  const std::size_t header_begin = 8 + length_bytes;
  if (bytes.size() < header_begin) refuse("is truncated: it ends before its header's length");
  std::size_t header_size = 0;
  for (std::size_t i = 0; i < length_bytes; ++i) header_size |= byte(8 + i) << (8 * i);
  if (header_size > bytes.size() - header_begin)
    refuse("is truncated: expected a header of " + std::to_string(header_size) + " bytes, found " +
           std::to_string(bytes.size() - header_begin));

  npy_array array;
  array.shape = header_reader(file, std::string_view(bytes).substr(header_begin, header_size)).shape();
  index_t count;
  if (!product_of(array.shape, count)) refuse("expected a shape that memory can hold, found " + text_of(array.shape));
  const std::size_t wanted = static_cast<std::size_t>(count) * 4, found = bytes.size() - header_begin - header_size;
  if (found != wanted)
    refuse((found < wanted ? "is truncated: expected " : "goes on after its values: expected ") + std::to_string(wanted) +
           " bytes of values for the shape " + text_of(array.shape) + ", found " + std::to_string(found));
  array.data.resize(static_cast<std::size_t>(count));
  if (count > 0) std::memcpy(array.data.data(), bytes.data() + header_begin + header_size, wanted);
  return array;
}

}   // namespace sara_finetune
