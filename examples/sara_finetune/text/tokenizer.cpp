#include "tokenizer.hpp"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "utf8.hpp"

namespace sara_finetune {
namespace {

constexpr std::string_view space_mark = "\xe2\x96\x81";    // U+2581, which SentencePiece writes for a space
constexpr std::size_t longest_training_text = 2'000'000;   // characters a language
constexpr double character_coverage = 0.9995;              // rarer characters are left to the bytes
constexpr int always_there = 3 + 256;                      // unknown, BOS, EOS and the bytes

// SentencePiece writes to the terminal unless a training run has told it not to.
constexpr const char* only_fatal = "3";

using sentences_of_language = std::map<std::string, std::vector<const std::string*>>;

class balanced_sentences : public sentencepiece::SentenceIterator {
 public:
  explicit balanced_sentences(const sentences_of_language& languages) {
    std::size_t longest = 0;
    for (const auto& [name, sentences] : languages) longest = std::max(longest, characters(sentences));
    const std::size_t wanted = std::min(longest, longest_training_text);
    for (const auto& [name, sentences] : languages) {
      // Each sentence as often as keeps what is given in step with wanted / have of what was seen.
      const std::size_t have = characters(sentences);
      std::size_t seen = 0, given = 0;
      for (const std::string* sentence : sentences) {
        const std::size_t length = count_characters(*sentence);
        seen += length;
        for (; length > 0 && given * have < seen * wanted; given += length) order_.push_back(sentence);
      }
    }
    Next();
  }

  bool done() const override { return at_ > order_.size(); }
  void Next() override {
    if (at_ < order_.size()) text_ = " " + *order_[at_];
    ++at_;
  }
  const std::string& value() const override { return text_; }
  sentencepiece::util::Status status() const override { return {}; }

  // Distinct characters that must have a piece of their own.
  std::size_t required_characters() const {
    std::unordered_map<std::string_view, std::size_t> counts;
    std::size_t all = 0, covered = 0, required = 0;
    for (const std::string* sentence : order_) {
      const std::string_view text = *sentence;
      for (std::size_t i = 0; i < text.size(); i += utf8_length(text, i), ++all) ++counts[text.substr(i, utf8_length(text, i))];
    }
    std::vector<std::size_t> sorted;
    for (const auto& [character, count] : counts) sorted.push_back(count);
    std::sort(sorted.rbegin(), sorted.rend());
    for (; required < sorted.size() && static_cast<double>(covered) < character_coverage * static_cast<double>(all); ++required) {
      covered += sorted[required];
    }
    return required;
  }

 private:
  static std::size_t characters(const std::vector<const std::string*>& sentences) {
    std::size_t count = 0;
    for (const std::string* sentence : sentences) count += count_characters(*sentence);
    return count;
  }

  std::vector<const std::string*> order_;
  std::string text_;
  std::size_t at_ = 0;
};

std::string spaces_of_marks(std::string piece) {
  for (std::size_t at = 0; (at = piece.find(space_mark, at)) != std::string::npos; ++at) piece.replace(at, space_mark.size(), " ");
  return piece;
}

}   // namespace

tokenizer tokenizer::train(const std::vector<monolingual_text>& texts, int vocabulary) {
  sentences_of_language languages;
  for (const monolingual_text& text : texts) {
    std::vector<const std::string*>& sentences = languages[text.language];
    for (const std::string& sentence : text.sentences) {
      if (first_invalid_utf8(sentence) != std::string::npos) {
        throw std::runtime_error("tokenizer: expected UTF-8 text in " + text.language + ", found '" + sentence + "'");
      }
      if (!sentence.empty()) sentences.push_back(&sentence);
    }
  }
  if (languages.empty()) throw std::runtime_error("tokenizer: expected text to train on, found none");
  for (const auto& [name, sentences] : languages) {
    if (sentences.empty()) throw std::runtime_error("tokenizer: expected text in " + name + " to train on, found none");
  }

  balanced_sentences sentences(languages);
  const int least = always_there + static_cast<int>(sentences.required_characters()) + 1;
  if (vocabulary < least) {
    throw std::runtime_error("tokenizer: a vocabulary of " + std::to_string(vocabulary) +
                             " is too small for this text: it needs at least " + std::to_string(least) +
                             " (256 bytes, the marks and every frequent character)");
  }
  std::string serialized;
  const sentencepiece::util::Status status =
      sentencepiece::SentencePieceTrainer::Train({{"model_type", "unigram"},
                                                  {"vocab_size", std::to_string(vocabulary)},
                                                  {"hard_vocab_limit", "false"},
                                                  {"byte_fallback", "true"},
                                                  {"character_coverage", std::to_string(character_coverage)},
                                                  {"normalization_rule_name", "identity"},
                                                  {"add_dummy_prefix", "false"},
                                                  {"remove_extra_whitespaces", "false"},
                                                  {"num_threads", "1"},
                                                  {"input_sentence_size", "0"},
                                                  {"shuffle_input_sentence", "false"},
                                                  {"max_sentence_length", "1000000"},
                                                  {"unk_id", std::to_string(unknown)},
                                                  {"bos_id", std::to_string(bos)},
                                                  {"eos_id", std::to_string(eos)},
                                                  {"pad_id", "-1"},
                                                  {"minloglevel", only_fatal}},
                                                 &sentences, &serialized);
  if (!status.ok()) throw std::runtime_error("tokenizer: SentencePiece could not train: " + status.ToString());

  tokenizer trained = load(std::move(serialized));
  if (trained.vocabulary() != vocabulary) {
    throw std::runtime_error("tokenizer: the training text supports a vocabulary of at most " + std::to_string(trained.vocabulary()) +
                             ", but " + std::to_string(vocabulary) + " is asked for: add text or ask for less");
  }
  return trained;
}

tokenizer tokenizer::load(std::string serialized) { return tokenizer(std::move(serialized)); }

tokenizer::tokenizer(std::string serialized) : serialized_(std::move(serialized)) {
  const auto refuse = [](const std::string& found) {
    throw std::runtime_error("tokenizer: expected a SentencePiece model with byte fallback as this program writes it, found " + found);
  };
  auto processor = std::make_shared<sentencepiece::SentencePieceProcessor>();
  if (serialized_.empty()) refuse("nothing");
  if (!processor->LoadFromSerializedProto(serialized_).ok()) refuse(std::to_string(serialized_.size()) + " bytes that are none");
  processor_ = processor;

  int bytes = 0;
  for (int id = 0; id < processor->GetPieceSize(); ++id) {
    const std::string& piece = processor->IdToPiece(id);
    if (processor->IsByte(id)) {   // <0x41>
      const int byte = std::stoi(piece.substr(1, 4), nullptr, 16);
      byte_token_.at(static_cast<std::size_t>(byte)) = id;
      bytes_of_.emplace_back(1, static_cast<char>(byte));
      ++bytes;
    } else if (processor->IsControl(id)) {
      bytes_of_.emplace_back();
    } else {
      bytes_of_.push_back(processor->IsUnknown(id) ? "\xef\xbf\xbd" : spaces_of_marks(piece));
    }
  }
  if (bytes != 256 || !processor->IsUnknown(unknown) || processor->bos_id() != bos || processor->eos_id() != eos) {
    refuse("one with " + std::to_string(bytes) + " byte tokens and BOS " + std::to_string(processor->bos_id()));
  }
  // A model cut off behind a piece still parses, with another normalisation.
  const std::string probe = "  a\tb \xf4\x8f\xbf\xbf ";
  if (decode(encode(probe)) != probe) refuse("one that changes the text");
}

std::vector<int> tokenizer::encode(std::string_view text) const {
  if (const std::size_t bad = first_invalid_utf8(text); bad != std::string_view::npos) {
    throw std::runtime_error("tokenizer: expected UTF-8 text, found something else at byte " + std::to_string(bad));
  }
  std::vector<int> ids;
  if (text.empty()) return ids;
  // The first word gets the space that all others have, so that it is the same pieces anywhere.
  std::string rest = " " + std::string(text);
  for (std::size_t at = 0; at <= rest.size();) {
    const std::size_t mark = std::min(rest.find(space_mark, at), rest.size());
    const std::vector<int> pieces = processor_->EncodeAsIds(std::string_view(rest).substr(at, mark - at));
    ids.insert(ids.end(), pieces.begin(), pieces.end());
    // SentencePiece would take this character for a space.
    if (mark < rest.size()) {
      for (const char c : space_mark) ids.push_back(byte_token_[static_cast<unsigned char>(c)]);
    }
    at = mark + space_mark.size();
  }
  return ids;
}

std::string tokenizer::decode(std::span<const int> ids) const {
  std::string text;
  for (const int id : ids) {
    if (id < 0 || id >= vocabulary()) {
      throw std::runtime_error("tokenizer: expected tokens from 0 to " + std::to_string(vocabulary() - 1) + ", found " +
                               std::to_string(id));
    }
    text += bytes_of_[static_cast<std::size_t>(id)];
  }
  if (text.starts_with(' ')) text.erase(0, 1);
  return text;
}

}   // namespace sara_finetune
