// Training, validation and test: what may be learned from, what chooses, and what no stage has seen.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <unordered_set>
#include <vector>

#include "corpus.hpp"

namespace sara_finetune {

// Consecutive pairs go together, block by block, so that near-duplicates, which corpora keep side by side, stay on one side of
// the line. A text of fewer than block * every pairs is cut into smaller blocks.
struct split_options {
  std::size_t block = 32;                 // pairs
  std::size_t every = 10;                 // of so many consecutive blocks ...
  std::size_t validation = 1, test = 1;   // ... these are held out
};

enum class part { training, validation, test };

// Depends on the block's number and the options alone: never on a run's seed, nor on how long the text is, so the files of one
// series, which say the same sentence at the same place, are cut alike.
part part_of_block(std::size_t block, const split_options& options = {});

struct parallel_split {
  std::string file, language;   // the low-resource language
  std::vector<pair> training, validation, test;
  std::size_t duplicates = 0;   // pairs left out: of training, with a side that stands in validation or test; of validation, in test
  std::size_t too_long = 0;     // pairs left out by leave_out_longer
};

// All texts at once, because a sentence held out of one is held out of all: duplicates are compared over all files and both
// sides, trimmed and with ASCII letters folded. Throws if options make no sense, a text is too short to be split, or a part is
// left without pairs.
std::vector<parallel_split> split(const std::vector<parallel_text>& texts, const split_options& options = {});

// Leaves out, in every part, the pairs with a side of more than `longest` tokens; none is truncated. `length` counts a
// sentence's tokens, and those that the caller adds. Returns how many were left out. Throws if a part is left without pairs.
std::size_t leave_out_longer(parallel_split& text, std::size_t longest, const std::function<std::size_t(const std::string&)>& length);

// Removes what stands in the validation or test part of any split, and returns how many sentences that were. Throws if none is left.
std::size_t leave_out_held_out(monolingual_text& text, const std::vector<parallel_split>& splits);

// What may be trained on, one text a language, `high` first: the training parts' sides, then the monolingual texts. A sentence
// of `high` that several files share stands there once.
std::vector<monolingual_text> training_text(const std::vector<parallel_split>& splits, const std::vector<monolingual_text>& more = {},
                                            const std::string& high = "en");

}   // namespace sara_finetune
