// Text files, checked: UTF-8 or an error that names the line.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace sara_finetune {

// The file's bytes, without a byte order mark. Throws if it cannot be read, is not strict UTF-8 or holds a NUL.
std::string read_text_file(const std::filesystem::path& file);

// Views into `text`: its lines without their ends (\n or \r\n); no line after the last end.
std::vector<std::string_view> lines(std::string_view text);

// Without the ASCII white space at its ends.
std::string_view trim(std::string_view text);

// The line of `text`, from 1, that holds the byte `at`.
std::size_t line_of(std::string_view text, std::size_t at);

// "FILE:LINE: what", the form of every complaint about a line of a file.
[[noreturn]] void refuse_line(const std::filesystem::path& file, std::size_t line, const std::string& what);

}   // namespace sara_finetune
