// Damaged copies of a file, for readers that must survive them.
#pragma once

#include <filesystem>
#include <random>
#include <string>

#include "../files.hpp"

namespace damage {

// Calls act(description) on every beginning of `file` and on `count` copies with up to three random bytes changed, then puts the file back.
template <class Act> void each(const std::filesystem::path& file, const std::string& whole, int count, const Act& act) {
  const auto put = [&](const std::string& bytes) {
    std::filesystem::remove(file);   // ext4 waits for the disk when an old file is written over
    std::ofstream(file, std::ios::binary) << bytes;
  };
  for (std::size_t size = 0; size < whole.size(); ++size) {
    put(whole.substr(0, size));
    act("cut to " + std::to_string(size) + " bytes");
  }
  std::mt19937_64 random(5);
  for (int i = 0; i < count; ++i) {
    std::string bytes = whole, what = "changed at";
    for (int changes = 1 + i % 3; changes > 0; --changes) {
      const std::size_t at = random() % bytes.size();
      bytes[at] = static_cast<char>(random() % 256);
      what += " " + std::to_string(at);
    }
    put(bytes);
    act(what);
  }
  put(whole);
}

}   // namespace damage
