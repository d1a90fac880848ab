// Files for the tests of what reads text: made in a temporary folder, or real ones where they are.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace files {

// A folder of its own, gone with its owner.
class temporary_folder {
 public:
  temporary_folder() {
    std::string name = (std::filesystem::temp_directory_path() / "sara_finetune_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  ~temporary_folder() { std::filesystem::remove_all(path_); }

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

inline std::filesystem::path root() { return SARA_ROOT; }   // the repository's

inline std::filesystem::path embedded() { return root() / "examples" / "sara_finetune" / "data" / "en-sw.tsv"; }

// The folder of TICO-19's memories; empty where there is none.
inline std::filesystem::path tico19() {
  const char* given = std::getenv("SARA_TICO19");
  const std::filesystem::path folder = given != nullptr ? given : root().parent_path() / "shared" / "data" / "tico19";
  return std::filesystem::exists(folder / "en-sw.tmx") ? folder : std::filesystem::path();
}

// What `act` complains of; empty if it does not.
template <class Act> std::string complaint(const Act& act) {
  try {
    act();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return {};
}

}   // namespace files
