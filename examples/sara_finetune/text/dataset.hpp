// The corpus as the model reads it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "../model/batch.hpp"
#include "splits.hpp"
#include "tokenizer.hpp"

namespace sara_finetune {

// One rule for every stage, the anchors and the loss alike: BOS and the sentence's pieces are what the model reads, and the routing of all
// of them makes the histogram; the pieces and EOS are what it predicts.
struct encoded_sentence {
  std::string text = {};                   // the original UTF-8, whose bytes "bits a byte" counts
  std::vector<std::int32_t> tokens = {};   // BOS, pieces

  index_t length() const { return static_cast<index_t>(tokens.size()); }
};

struct encoded_pair {
  std::string id = {};   // see corpus.hpp
  encoded_sentence high = {}, low = {};
};

// One low-resource language against the high-resource one; the files of one language are put together.
struct encoded_split {
  std::string file = {}, language = {};   // of several files "a.tmx, b.tsv"
  std::vector<encoded_pair> training = {}, validation = {}, test = {};
  std::size_t duplicates = 0, too_long = 0;   // pairs that were left out, see splits.hpp
};

// What became of a file: pairs, or of monolingual text sentences, which are all for training.
struct file_counts {
  std::string file = {}, language = {};
  bool parallel = true;
  std::size_t training = 0, validation = 0, test = 0;
  std::size_t duplicates = 0, too_long = 0;   // left out
};

struct dataset {
  std::string high = "en";
  std::vector<encoded_split> languages = {};
  std::vector<encoded_sentence> high_text = {};               // all that may be trained on, each sentence once
  std::vector<std::vector<encoded_sentence>> low_text = {};   // [languages], their training sides and monolingual text
  std::vector<file_counts> files = {};                        // in the order they were given, parallel ones first
};

encoded_sentence encode(const tokenizer& from, const std::string& sentence);

// Adds a sequence. The targets of the first `given` tokens (BOS among them) do not count: a cloze's prefix.
void append(packed_batch& batch, const encoded_sentence& sentence, index_t given = 0);

struct corpus_options {
  std::vector<std::filesystem::path> parallel = {};
  std::vector<std::pair<std::string, std::filesystem::path>> text = {};   // language and file, more to pretrain on
  std::string high = "en";
  int vocabulary = 2000;
  index_t context = 96;   // tokens, BOS among them: what is longer is left out
};

struct prepared_corpus {
  tokenizer words;
  dataset data;
};

// Reads, splits, trains the tokenizer on the pairs of the training parts, and encodes. With `existing`, a checkpoint's, no tokenizer is
// trained. Throws on whatever is wrong with the files, on a file given twice, on monolingual text in a language of which there are no
// pairs, and if a part of a file is left without any.
prepared_corpus prepare(const corpus_options& options, const tokenizer* existing = nullptr);

inline constexpr std::size_t enough_pairs = 1000;   // of a language, to train this model at all

// For the terminal: a line a file, with what was left out, and a warning of each language whose pairs are too few to train on.
std::string about(const dataset& data);

}   // namespace sara_finetune
