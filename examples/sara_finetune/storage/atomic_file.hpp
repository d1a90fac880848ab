// Whole files, in and out: what is written stands there complete or not at all.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace sara_finetune {

// A file's next content, on the disk (fsync) under a temporary name in the same folder; commit() puts it in the file's place. Several
// files that belong together are all staged before the first is committed: then a full disk leaves every old one as it was.
// Throws one sentence: the file, what failed, and the system's reason. The temporary file goes with its owner.
class staged_file {
 public:
  staged_file(std::filesystem::path file, std::span<const std::string_view> parts);
  staged_file(std::filesystem::path file, std::string_view bytes) : staged_file(std::move(file), std::span(&bytes, 1)) {}
  staged_file(const staged_file&) = delete;
  staged_file& operator=(const staged_file&) = delete;
  ~staged_file();

  void commit();

 private:
  std::filesystem::path file_, temporary_;   // no temporary: committed
};

// staged_file, committed.
void write_file(const std::filesystem::path& file, std::span<const std::string_view> parts);   // one after another
void write_file(const std::filesystem::path& file, std::string_view bytes);

// Throws if it cannot be read.
std::string read_file(const std::filesystem::path& file);

// The values' memory, for staged_file.
std::string_view bytes_of(std::span<const float> values);

}   // namespace sara_finetune
