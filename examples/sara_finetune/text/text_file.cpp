#include "text_file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <system_error>

#include "utf8.hpp"

namespace sara_finetune {

std::string read_text_file(const std::filesystem::path& file) {
  const auto refuse = [&](const char* why) { throw std::runtime_error(file.string() + ": cannot be read: " + why); };
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored)) refuse("it is a folder");
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  if (!in) refuse(std::strerror(errno != 0 ? errno : EIO));
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (in.bad()) refuse(std::strerror(errno != 0 ? errno : EIO));

  std::size_t bad = first_invalid_utf8(text);
  bad = std::min(bad, text.find('\0'));
  if (bad != std::string::npos) {
    char byte[8];
    std::snprintf(byte, sizeof byte, "0x%02X", static_cast<unsigned>(static_cast<unsigned char>(text[bad])));
    refuse_line(file, line_of(text, bad), std::string("expected UTF-8 text, found the byte ") + byte);
  }
  if (text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);
  return text;
}

std::vector<std::string_view> lines(std::string_view text) {
  std::vector<std::string_view> all;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    all.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return all;
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view white = " \t\n\r\v\f";
  const std::size_t begin = text.find_first_not_of(white);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(white) - begin + 1);
}

std::size_t line_of(std::string_view text, std::size_t at) {
  const std::string_view before = text.substr(0, std::min(at, text.size()));
  return 1 + static_cast<std::size_t>(std::count(before.begin(), before.end(), '\n'));
}

void refuse_line(const std::filesystem::path& file, std::size_t line, const std::string& what) {
  throw std::runtime_error(file.string() + ":" + std::to_string(line) + ": " + what);
}

}   // namespace sara_finetune
