// Numbers as a person reads them; the same text in every locale.
#pragma once

#include <string>

namespace sara_finetune {

// At least so many significant digits, and no exponent between 1e-5 and 1e15: 2.300, 0.01234, 12346. Not a finite number: "n/a".
std::string significant(double value, int digits = 4);

// With a sign always: +0.01234.
std::string with_sign(double value, int digits = 4);

std::string fixed(double value, int decimals);

// 1234567 as 1,234,567.
std::string grouped(long long value);

}   // namespace sara_finetune
