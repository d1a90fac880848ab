// The SentencePiece tokenizer that a checkpoint carries.
//
// Unigram rather than BPE: its pieces lie nearer to the morphemes of agglutinating languages (Bostrom and Durrett, 2020, arXiv
// 2004.03720). Byte fallback and identity normalisation: every valid UTF-8 text is encoded without an unknown token and decoded
// to the same bytes. The same texts in the same order give the same model, bit by bit.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "corpus.hpp"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace sara_finetune {

class tokenizer {
 public:
  static constexpr int unknown = 0, bos = 1, eos = 2;   // there is no padding token

  // Learns `vocabulary` pieces. Texts of one language are put together, and every language is given the same number of
  // characters: what has fewer is repeated, what has more than the limit is thinned out evenly. Throws if a language has no
  // text, or if the text cannot fill the vocabulary or does not fit into it: the sentence says what would.
  static tokenizer train(const std::vector<monolingual_text>& texts, int vocabulary = 2000);

  // From serialized(). Throws if the bytes are not such a tokenizer.
  static tokenizer load(std::string serialized);

  // Without BOS and EOS. Throws if the text is not UTF-8.
  std::vector<int> encode(std::string_view text) const;

  // The inverse of encode; BOS and EOS leave no trace. Ids that encode did not give may spell out bytes that are not UTF-8.
  std::string decode(std::span<const int> ids) const;

  int vocabulary() const { return static_cast<int>(bytes_of_.size()); }
  const std::string& serialized() const { return serialized_; }

 private:
  explicit tokenizer(std::string serialized);

  std::string serialized_;
  std::shared_ptr<const sentencepiece::SentencePieceProcessor> processor_;
  std::vector<std::string> bytes_of_;   // [vocabulary] what a token stands for
  std::array<int, 256> byte_token_{};
};

}   // namespace sara_finetune
