#include "numbers.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

namespace sara_finetune {
namespace {

std::string written(double value, std::chars_format format, int precision) {
  char text[400];   // the longest fixed double has 309 digits before its point
  const auto [end, error] = std::to_chars(text, text + sizeof text, value, format, precision);
  return error == std::errc() ? std::string(text, end) : std::string("n/a");
}

}   // namespace

std::string fixed(double value, int decimals) {
  if (!std::isfinite(value)) return "n/a";
  std::string text = written(value, std::chars_format::fixed, decimals);
  if (text.starts_with('-') && text.find_first_not_of("-0.") == std::string::npos) text.erase(0, 1);   // a zero has no sign
  return text;
}

std::string significant(double value, int digits) {
  if (!std::isfinite(value)) return "n/a";
  if (value == 0) return fixed(0, digits - 1);
  const std::string scientific = written(value, std::chars_format::scientific, digits - 1);
  // After the rounding: 9.9996 has the exponent of 10.
  const std::string_view digits_of_exponent = std::string_view(scientific).substr(scientific.find('e') + 1);
  int exponent = 0;
  std::from_chars(digits_of_exponent.data() + 1, digits_of_exponent.data() + digits_of_exponent.size(), exponent);
  if (digits_of_exponent.front() == '-') exponent = -exponent;
  if (exponent < -5 || exponent >= 15) return scientific;
  return fixed(value, std::max(0, digits - 1 - exponent));
}

std::string with_sign(double value, int digits) { return (value > 0 ? "+" : "") + significant(value, digits); }

std::string grouped(long long value) {
  std::string text = std::to_string(value);
  const std::ptrdiff_t first = value < 0 ? 1 : 0;
  for (std::ptrdiff_t at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > first; at -= 3)
    text.insert(static_cast<std::size_t>(at), ",");
  return text;
}

}   // namespace sara_finetune
