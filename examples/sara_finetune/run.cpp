#include "run.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <numeric>

#include "evaluation/evaluation.hpp"
#include "evaluation/measure.hpp"
#include "report/report.hpp"
#include "report/summary.hpp"
#include "storage/anchors.hpp"
#include "storage/atomic_file.hpp"
#include "storage/fingerprint.hpp"
#include "training/random.hpp"

namespace sara_finetune {
namespace {

constexpr const char* pretrained = "pretrained";

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::uint64_t with_sentence(std::uint64_t state, const encoded_sentence& sentence) {
  state = fnv1a(sentence.text, state);
  for (const std::int32_t token : sentence.tokens) state = fnv1a(std::to_string(token) + " ", state);
  return state;
}

// Of all that the corpus gives a run: a checkpoint goes on with no other.
std::string fingerprint_of(const dataset& data) {
  std::uint64_t state = fnv1a_start;
  for (const encoded_split& language : data.languages) {
    state = fnv1a(language.language, state);
    for (const auto* pairs : {&language.training, &language.validation, &language.test})
      for (const encoded_pair& p : *pairs) state = with_sentence(with_sentence(fnv1a(p.id, state), p.high), p.low);
  }
  for (const encoded_sentence& sentence : data.high_text) state = with_sentence(state, sentence);
  for (const auto& text : data.low_text)
    for (const encoded_sentence& sentence : text) state = with_sentence(state, sentence);
  return hexadecimal(state);
}

std::vector<const encoded_sentence*> sides(const std::vector<encoded_pair>& pairs, encoded_sentence encoded_pair::*side) {
  std::vector<const encoded_sentence*> all;
  for (const encoded_pair& p : pairs) all.push_back(&(p.*side));
  return all;
}

double bits_a_byte(const std::vector<double>& cross_entropies, const std::vector<const encoded_sentence*>& sentences) {
  const double bytes = std::accumulate(sentences.begin(), sentences.end(), 0.0,
                                       [](double sum, const encoded_sentence* s) { return sum + static_cast<double>(s->text.size()); });
  return std::accumulate(cross_entropies.begin(), cross_entropies.end(), 0.0) / std::numbers::ln2 / bytes;
}

}   // namespace

run::run(const settings& how, std::filesystem::path out, bool goes_on) : settings_(how), out_(std::move(out)) {
  how.check();
  const std::filesystem::path echo = out_ / "settings.json";
  const bool holds_one = std::filesystem::exists(echo);
  if (holds_one && !goes_on)
    throw std::runtime_error(out_.string() + " already holds a run: add --resume to go on with it, or choose another --out");

  corpus_options from{.high = how.high, .vocabulary = how.shape.vocabulary, .context = how.shape.context};
  from.parallel.assign(how.parallel.begin(), how.parallel.end());
  for (const std::string& text : how.text) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos) throw std::runtime_error("--text must be LANG=FILE, but is '" + text + "'");
    from.text.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  const std::filesystem::path words = out_ / "tokenizer.model";
  const double begin = now();
  if (holds_one && std::filesystem::exists(words)) {
    const tokenizer existing = tokenizer::load(read_file(words));
    corpus_ = std::make_unique<prepared_corpus>(prepare(from, &existing));
  } else {
    corpus_ = std::make_unique<prepared_corpus>(prepare(from));
  }
  corpus_fingerprint_ = fingerprint_of(corpus_->data);

  std::error_code failed;
  std::filesystem::create_directories(out_, failed);
  if (failed) throw std::runtime_error(out_.string() + ": cannot make this folder: " + failed.message());
  if (!holds_one) write_file(words, corpus_->words.serialized());
  nlohmann::json echoed = settings_;
  echoed["corpus"] = {{"name", settings_.corpus}, {"illustrative", settings_.illustrative}, {"files", nlohmann::json::array()}};
  for (const file_counts& f : corpus_->data.files)
    echoed["corpus"]["files"].push_back({{"file", std::filesystem::path(f.file).filename().string()},
                                         {"language", f.language},
                                         {"parallel", f.parallel},
                                         {"training", f.training},
                                         {"validation", f.validation},
                                         {"test", f.test},
                                         {"duplicates", f.duplicates},
                                         {"too_long", f.too_long}});
  write_file(echo, echoed.dump(2) + "\n");
  pool_ = std::make_unique<sara::thread_pool>(settings_.threads);
  std::cout << about(corpus_->data) << "tokenizer and corpus: " << fixed(now() - begin, 1) << " s; " << pool_->size() << " threads\n";
}

std::vector<std::uint64_t> run::seeds() const {
  std::vector<std::uint64_t> all;
  for (int i = 0; i < settings_.seeds; ++i) all.push_back(settings_.seed + static_cast<std::uint64_t>(i));
  return all;
}

std::filesystem::path run::folder(std::uint64_t seed) const { return out_ / ("seed-" + std::to_string(seed)); }

std::filesystem::path run::checkpoint_of(std::uint64_t seed, const std::string& model) const {
  return folder(seed) / (model + ".checkpoint");
}

std::vector<float> run::parameters_of(std::uint64_t seed, const std::string& model) const {
  return trained_parameters(checkpoint_of(seed, model), model == pretrained ? "pretrain" : "finetune", settings_.shape,
                            corpus_fingerprint_);
}

// The mean weighs the languages as pretraining does.
validation run::validated(const std::vector<float>& parameters) {
  const dataset& data = corpus_->data;
  validation found{.bits_per_byte = nlohmann::json::object(), .mean = 0};
  double low = 0, high = 0;
  for (const encoded_split& language : data.languages) {
    const auto bits_of = [&](encoded_sentence encoded_pair::*side) {
      const auto sentences = sides(language.validation, side);
      return bits_a_byte(measure(settings_.shape, parameters, sentences, pass::evaluation, *pool_).cross_entropies, sentences);
    };
    const double of_low = bits_of(&encoded_pair::low);
    found.bits_per_byte[language.language] = of_low;
    low += of_low;
    high += bits_of(&encoded_pair::high);
  }
  const double languages = static_cast<double>(data.languages.size());
  found.bits_per_byte[data.high] = high / languages;
  found.mean = settings_.low_share * low / languages + (1 - settings_.low_share) * high / languages;
  return found;
}

void run::train_stage(std::uint64_t seed, const std::string& arm, const step_batches& batches, const objective& towards,
                      const std::vector<float>& initial) {
  const bool pretrains = arm.empty();
  train({.stage = pretrains ? "pretrain" : "finetune",
         .arm = arm,
         .seed = seed,
         .checkpoint = checkpoint_of(seed, pretrains ? pretrained : arm),
         .metrics = folder(seed) / "metrics.jsonl",
         .corpus = corpus_fingerprint_,
         .rate = pretrains ? settings_.pretrain_rate : settings_.finetune_rate,
         .warmup = settings_.warmup,
         .validations = settings_.validations,
         .save_every = settings_.save_every,
         .keeps_best = pretrains,
         .validate = [this](const std::vector<float>& parameters) { return validated(parameters); }},
        settings_.shape,
        {.micro_batches = settings_.micro_batches, .adamw = {.weight_decay = settings_.weight_decay}, .clip = settings_.clip}, batches,
        towards, initial, *pool_, interrupts_);
}

void run::pretrain() {
  for (const std::uint64_t seed : seeds()) {
    std::filesystem::create_directories(folder(seed));
    const step_batches batches = pretraining_batches(corpus_->data, settings_.low_share, settings_.low_sentences,
                                                     {.sequences = settings_.sequences, .tokens = settings_.pretrain_tokens, .seed = seed});
    train_stage(seed, {}, batches, {.balance_weight = settings_.balance}, initialize<float>(settings_.shape, mixed(seed, 6)));
  }
}

std::vector<std::string> run::keys_of_training_pairs() const {
  std::vector<std::string> keys;
  for (const encoded_split& language : corpus_->data.languages)
    for (const encoded_pair& p : language.training) keys.push_back(language.language + "/" + p.id);
  return keys;
}

void run::make_anchors() {
  for (const std::uint64_t seed : seeds()) {
    const std::vector<float> parameters = parameters_of(seed, pretrained);
    const std::filesystem::path file = folder(seed) / "anchors.npy";
    if (std::filesystem::exists(file)) {
      read_anchors(file, settings_.shape, fingerprint(parameters));
      std::cout << "anchors, seed " << seed << ": done already (" << file.filename().string() << ")\n";
      continue;
    }
    const double begin = now();
    const std::vector<std::string> keys = keys_of_training_pairs();
    std::vector<const encoded_sentence*> sentences;
    for (const encoded_split& language : corpus_->data.languages) {
      const auto high = sides(language.training, &encoded_pair::high);
      sentences.insert(sentences.end(), high.begin(), high.end());
    }
    const bool filters = settings_.anchors_keep < 1;
    const measured_sentences seen = measure(settings_.shape, parameters, sentences, filters ? pass::evaluation : pass::routing, *pool_);

    std::vector<std::size_t> kept(keys.size());
    std::iota(kept.begin(), kept.end(), std::size_t{0});
    if (filters) {
      const auto cost = [&](std::size_t i) { return seen.cross_entropies[i] / static_cast<double>(sentences[i]->text.size()); };
      std::stable_sort(kept.begin(), kept.end(), [&](std::size_t a, std::size_t b) { return cost(a) < cost(b); });
      kept.resize(
          std::max<std::size_t>(1, static_cast<std::size_t>(std::llround(settings_.anchors_keep * static_cast<double>(keys.size())))));
      std::sort(kept.begin(), kept.end());
    }
    anchor_table table{.layers = seen.layers, .experts = seen.experts, .keys = {}, .histograms = {}, .model = fingerprint(parameters)};
    const index_t of_a_row = seen.layers * seen.experts;
    for (const std::size_t i : kept) {
      const auto row = seen.histograms.begin() + static_cast<std::ptrdiff_t>(i) * of_a_row;
      table.keys.push_back(keys[i]);
      table.histograms.insert(table.histograms.end(), row, row + of_a_row);
    }
    write_anchors(file, table);
    std::cout << "anchors, seed " << seed << ": " << table.samples() << " of " << keys.size() << " pairs, " << fixed(now() - begin, 1)
              << " s\n";
    if (interrupts_.requested())
      throw interrupted("stopped after the anchors; the same command with --resume goes on", interrupts_.signal());
  }
}

void run::finetune() {
  for (const std::uint64_t seed : seeds()) {
    const std::vector<float> initial = parameters_of(seed, pretrained);
    const std::filesystem::path file = folder(seed) / "anchors.npy";
    if (!std::filesystem::exists(file)) throw std::runtime_error(file.string() + " is not there: `sara_finetune anchors` makes it");
    const anchor_table anchors = read_anchors(file, settings_.shape, fingerprint(initial));
    const std::vector<std::int32_t> row_of_pair = anchors.rows_for(keys_of_training_pairs());
    const std::vector<std::int32_t> other_pair = shuffled_rows(corpus_->data, seed);
    for (const std::string& text : settings_.arms) {
      const arm a = parse_arm(text, settings_, seed);
      step_batches batches = finetuning_batches(corpus_->data, a.rehearsal,
                                                {.sequences = settings_.sequences, .tokens = settings_.finetune_tokens, .seed = seed});
      for (auto& step : batches)
        for (training_sequence& s : step) {
          if (s.anchor_row < 0) continue;
          const auto pair = static_cast<std::size_t>(s.anchor_row);
          s.anchor_row = row_of_pair[a.shuffled ? static_cast<std::size_t>(other_pair[pair]) : pair];
        }
      train_stage(seed, a.name, batches,
                  {.balance_weight = settings_.balance,
                   .lambda = a.lambda,
                   .window_begin = a.window_first,
                   .window_layers = a.window_last - a.window_first + 1,
                   .anchors = anchors.histograms.data(),
                   .anchor_rows = anchors.samples()},
                  initial);
    }
  }
}

void run::evaluate() {
  const part of = settings_.part == "test" ? part::test : part::validation;
  const double begin = now();
  for (const std::uint64_t seed : seeds()) {
    std::map<std::string, measured_sentences> frozen;
    std::vector<std::string> models = {pretrained};
    models.insert(models.end(), settings_.arms.begin(), settings_.arms.end());
    nlohmann::json results = {{"part", settings_.part}, {"models", nlohmann::json::object()}};
    for (const std::string& model : models) {
      const std::vector<float> parameters = parameters_of(seed, model);
      if (model == pretrained) frozen = freeze(settings_.shape, parameters, corpus_->data, of, *pool_);
      results["models"][model] = sara_finetune::evaluate(settings_.shape, parameters, corpus_->data, of, corpus_->words, frozen, *pool_);
      if (interrupts_.requested())
        throw interrupted("stopped during the evaluation; the same command with --resume goes on", interrupts_.signal());
    }
    write_file(folder(seed) / "evaluation.json", results.dump(1) + "\n");
  }
  std::cout << "evaluation on the " << settings_.part << " part: " << fixed(now() - begin, 1) << " s\n";
}

void run::report() {
  const run_results results = read_results(out_);
  write_report(results, out_);
  std::cout << "\n" << summary_table(results) << "\n" << (out_ / "report.html").string() << "\n";
}

}   // namespace sara_finetune
