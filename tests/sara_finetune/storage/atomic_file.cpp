// Files that are written whole or not at all.
#include "sara_finetune/storage/atomic_file.hpp"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "../files.hpp"
#include "catch.hpp"
#include "limits.hpp"

namespace {

using files::complaint, files::temporary_folder;
using sara_finetune::read_file, sara_finetune::staged_file, sara_finetune::write_file;

bool holds_only(const std::filesystem::path& folder, const std::string& name) {
  std::size_t entries = 0;
  bool there = false;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    ++entries;
    there = there || entry.path().filename() == name;
  }
  return entries == 1 && there;
}

}   // namespace

TEST_CASE("atomic_file: what is written is read, and nothing else stays", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "a file";
  write_file(file, "first");
  REQUIRE(read_file(file) == "first");

  std::string large(3'000'000, 'x');
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 31 % 256);
  const std::string_view parts[] = {"", large, std::string_view("\0\n", 2), "", "end"};
  write_file(file, parts);
  REQUIRE(read_file(file) == large + std::string("\0\nend", 5));

  write_file(file, "");
  REQUIRE(read_file(file).empty());
  REQUIRE(holds_only(folder.path(), "a file"));

  const mode_t mask = ::umask(027);
  write_file(folder.path() / "masked", "x");
  ::umask(mask);
  struct stat status;
  REQUIRE(::stat((folder.path() / "masked").c_str(), &status) == 0);
  REQUIRE((status.st_mode & 0777) == 0640);
}

TEST_CASE("atomic_file: a name without a folder is in the working directory, and may be as long as names get", "[sara_finetune]") {
  const temporary_folder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  const std::string name(255, 'n');
  const std::string said = complaint([&] { write_file(name, "here"); });
  std::filesystem::current_path(before);
  REQUIRE(said == "");
  REQUIRE(read_file(folder.path() / name) == "here");
}

TEST_CASE("atomic_file: values are their little-endian bytes", "[sara_finetune]") {
  const float values[] = {1.0f, -0.0f};
  REQUIRE(std::string(sara_finetune::bytes_of(values)) ==
          std::string("\0\0\x80\x3f\0\0\0\x80", 8));   // Debian's Catch2 cannot tell Clang a string_view
}

TEST_CASE("atomic_file: files that belong together change together", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.write("file", "old");
  {
    const staged_file never_committed(file, "new");
    REQUIRE_FALSE(holds_only(folder.path(), "file"));
    REQUIRE(read_file(file) == "old");
  }
  REQUIRE(holds_only(folder.path(), "file"));
  staged_file staged(file, "new");
  REQUIRE(read_file(file) == "old");
  staged.commit();
  REQUIRE(read_file(file) == "new");
  REQUIRE(complaint([&] { staged.commit(); }) == file.string() + ": cannot be written: it was committed before");
}

TEST_CASE("atomic_file: a temporary file that a killed process left does not matter", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "file";
  unsigned next = 0;   // of the temporary names
  {
    const staged_file probe(file, "");
    const std::string name = std::filesystem::directory_iterator(folder.path())->path().filename().string();
    next = static_cast<unsigned>(std::stoul(name.substr(name.rfind('.') + 1))) + 1;
  }
  const std::string left = ".sara_finetune." + std::to_string(::getpid()) + "." + std::to_string(next);
  folder.write(left, "left");
  write_file(file, "whole");
  REQUIRE(read_file(file) == "whole");
  REQUIRE(read_file(folder.path() / left) == "left");
}

TEST_CASE("atomic_file: what fails is said in a sentence, and the old file survives", "[sara_finetune]") {
  const temporary_folder folder;
  const auto missing = folder.path() / "missing" / "file";
  REQUIRE(complaint([&] { write_file(missing, "x"); }) == missing.string() + ": cannot be written: creating a temporary file in " +
                                                              missing.parent_path().string() + ": No such file or directory");
  const auto taken = folder.path() / "taken";
  std::filesystem::create_directories(taken / "inside");
  REQUIRE(complaint([&] { write_file(taken, "x"); }) == taken.string() + ": cannot be written: rename: Is a directory");
  REQUIRE(holds_only(folder.path(), "taken"));
  std::filesystem::remove_all(taken);

  const auto file = folder.write("file", "old");
  {
    const limits::file_size limit(4096);
    REQUIRE(complaint([&] { write_file(file, std::string(5000, 'n')); }) == file.string() + ": cannot be written: writing: File too large");
    REQUIRE(read_file(file) == "old");
    REQUIRE(holds_only(folder.path(), "file"));
    const std::string_view parts[] = {"n", std::string_view()};
    REQUIRE(complaint([&] { write_file(file, parts); }) == "");
  }
  REQUIRE(read_file(file) == "n");

  if (::geteuid() != 0) {
    std::filesystem::permissions(folder.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
    const std::string said = complaint([&] { write_file(file, "x"); });
    std::filesystem::permissions(folder.path(), std::filesystem::perms::owner_all);
    REQUIRE(said == file.string() + ": cannot be written: creating a temporary file in " + folder.path().string() + ": Permission denied");
    REQUIRE(read_file(file) == "n");
  }
}

TEST_CASE("atomic_file: a full disk leaves the old file", "[sara_finetune]") {
  const temporary_folder folder;
  enum : int { good, not_permitted = 77, old_not_written, not_refused, sentence_differs, old_lost, temporary_left };
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {   // in a mount namespace of its own, so that the small disk goes with it
    const int namespaces = ::geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;
    if (::unshare(namespaces) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", folder.path().c_str(), "tmpfs", 0, "size=65536") != 0)
      ::_exit(not_permitted);
    const auto file = folder.path() / "file";
    const std::string old(20000, 'o');
    if (complaint([&] { write_file(file, old); }) != "") ::_exit(old_not_written);
    const std::string said = complaint([&] { write_file(file, std::string(60000, 'n')); });
    if (said.empty()) ::_exit(not_refused);
    if (said != file.string() + ": cannot be written: writing: No space left on device") ::_exit(sentence_differs);
    if (read_file(file) != old) ::_exit(old_lost);
    ::_exit(holds_only(folder.path(), "file") ? good : temporary_left);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == not_permitted) {
    WARN("no small disk may be mounted here");
  } else {
    REQUIRE(WEXITSTATUS(status) == good);
  }
}

TEST_CASE("atomic_file: what cannot be read is said in a sentence", "[sara_finetune]") {
  const temporary_folder folder;
  const auto missing = folder.path() / "missing";
  REQUIRE(complaint([&] { read_file(missing); }) == missing.string() + ": cannot be read: No such file or directory");
  REQUIRE(complaint([&] { read_file(folder.path()); }) == folder.path().string() + ": cannot be read: it is not a regular file");
  REQUIRE(complaint([&] { read_file("/dev/null"); }) == "/dev/null: cannot be read: it is not a regular file");
}
