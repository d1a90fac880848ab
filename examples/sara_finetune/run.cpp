#include "run.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <numeric>
#include <optional>

#include "evaluation/evaluation.hpp"
#include "evaluation/measure.hpp"
#include "report/numbers.hpp"
#include "report/report.hpp"
#include "report/summary.hpp"
#include "storage/atomic_file.hpp"
#include "storage/fingerprint.hpp"
#include "training/random.hpp"

namespace sara_finetune {
namespace {

const std::string pretrained = "pretrained";

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

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

nlohmann::json corpus_block(const dataset& data, const std::string& fingerprint) {
  nlohmann::json files = nlohmann::json::array();
  for (const file_counts& f : data.files)
    files.push_back({{"file", std::filesystem::path(f.file).filename().string()},
                     {"language", f.language},
                     {"parallel", f.parallel},
                     {"training", f.training},
                     {"validation", f.validation},
                     {"test", f.test},
                     {"duplicates", f.duplicates},
                     {"too_long", f.too_long}});
  return {{"files", files}, {"fingerprint", fingerprint}};
}

bool holds_parts_of_a_run(const std::filesystem::path& out) {
  if (!std::filesystem::is_directory(out)) return false;
  for (const auto& entry : std::filesystem::directory_iterator(out))
    if (const std::string name = entry.path().filename().string(); name == "tokenizer.model" || name.starts_with("seed-")) return true;
  return false;
}

}   // namespace

run::run(const settings& how, std::filesystem::path out, bool goes_on) : settings_(how), out_(std::move(out)) {
  how.check();
  const std::filesystem::path echo = out_ / "settings.json";
  if (std::filesystem::exists(echo)) {
    if (!goes_on) throw std::runtime_error(out_.string() + " already holds a run: add --resume to go on with it, or choose another --out");
    const nlohmann::json old = read_settings(echo);
    check_same_run(old.get<settings>(), how, echo);
    old_corpus_ = old.value("corpus", nlohmann::json());
    if (!old_corpus_.is_object()) throw std::runtime_error(echo.string() + ": expected the corpus of this run, found none");
  } else if (holds_parts_of_a_run(out_)) {
    throw std::runtime_error(out_.string() + " holds parts of a run, but no settings.json: choose another --out");
  }
  pool_ = std::make_unique<sara::thread_pool>(settings_.threads);
}

void run::read_corpus() {
  if (corpus_) return;
  const double begin = now();
  corpus_options from{.high = settings_.high, .vocabulary = settings_.shape.vocabulary, .context = settings_.shape.context};
  from.parallel.assign(settings_.parallel.begin(), settings_.parallel.end());
  for (const std::string& text : settings_.text) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos) throw std::runtime_error("--text must be LANG=FILE, but is '" + text + "'");
    from.text.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  const std::filesystem::path words = out_ / "tokenizer.model", echo = out_ / "settings.json";
  std::optional<tokenizer> existing;
  if (!old_corpus_.is_null()) {
    try {
      existing = tokenizer::load(read_file(words));
    } catch (const std::runtime_error& e) {
      throw std::runtime_error(words.string() + ": " + e.what());
    }
  }
  auto corpus = std::make_unique<prepared_corpus>(prepare(from, existing ? &*existing : nullptr));
  const nlohmann::json block = corpus_block(corpus->data, fingerprint_of(corpus->data));
  if (!old_corpus_.is_null() && old_corpus_ != block)
    throw std::runtime_error(echo.string() + ": expected the text that this run began with (corpus " +
                             old_corpus_.value("fingerprint", nlohmann::json()).dump() + "), found another (" +
                             block.at("fingerprint").dump() + "): choose another --out");

  std::error_code failed;
  std::filesystem::create_directories(out_, failed);
  if (failed) throw std::runtime_error(out_.string() + ": cannot make this folder: " + failed.message());
  if (!existing) write_file(words, corpus->words.serialized());
  write_settings(block);
  corpus_fingerprint_ = block.at("fingerprint").get<std::string>();
  corpus_ = std::move(corpus);
  std::cout << about(corpus_->data) << "tokenizer and corpus: " << fixed(now() - begin, 1) << " s; " << pool_->size() << " threads\n";
}

void run::write_settings(const nlohmann::json& corpus) const {
  nlohmann::json echo = settings_;
  echo["corpus"] = corpus;
  write_file(out_ / "settings.json", echo.dump(2) + "\n");
}

std::vector<std::uint64_t> run::seeds() const {
  std::vector<std::uint64_t> all;
  for (int i = 0; i < settings_.seeds; ++i) all.push_back(static_cast<std::uint64_t>(settings_.seed + i));
  return all;
}

std::filesystem::path run::folder(std::uint64_t seed) const { return out_ / ("seed-" + std::to_string(seed)); }

training_stage run::stage_of(std::uint64_t seed, const std::string& arm) {
  const bool pretrains = arm.empty();
  return {.stage = pretrains ? "pretrain" : "finetune",
          .arm = arm,
          .seed = seed,
          .checkpoint = folder(seed) / ((pretrains ? pretrained : arm) + ".checkpoint"),
          .metrics = folder(seed) / "metrics.jsonl",
          .corpus = corpus_fingerprint_,
          .rate = pretrains ? settings_.pretrain_rate : settings_.finetune_rate,
          .warmup = settings_.warmup,
          .validations = settings_.validations,
          .save_every = settings_.save_every,
          .keeps_best = pretrains,
          .validate = [this](const std::vector<float>& parameters) { return validated(parameters); }};
}

void run::train_stage(std::uint64_t seed, const std::string& arm, const step_batches& batches, const objective& towards,
                      const std::vector<float>& initial) {
  train(stage_of(seed, arm), settings_.shape,
        {.micro_batches = settings_.micro_batches, .adamw = {.weight_decay = settings_.weight_decay}, .clip = settings_.clip}, batches,
        towards, initial, *pool_, interrupts_);
}

std::vector<float> run::parameters_of(std::uint64_t seed, const std::string& arm) {
  return trained_parameters(stage_of(seed, arm), settings_.shape);
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

void run::pretrain() {
  read_corpus();
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

anchor_table run::anchors_of(const std::vector<float>& parameters) {
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
    const double share = std::round(settings_.anchors_keep * static_cast<double>(keys.size()));
    kept.resize(std::max<std::size_t>(1, static_cast<std::size_t>(share)));
    std::sort(kept.begin(), kept.end());
  }
  anchor_table table{.layers = seen.layers, .experts = seen.experts, .keys = {}, .histograms = {}, .model = fingerprint(parameters)};
  const index_t of_a_row = seen.layers * seen.experts;
  for (const std::size_t i : kept) {
    const auto row = seen.histograms.begin() + static_cast<std::ptrdiff_t>(i) * of_a_row;
    table.keys.push_back(keys[i]);
    table.histograms.insert(table.histograms.end(), row, row + of_a_row);
  }
  return table;
}

void run::make_anchors() {
  read_corpus();
  for (const std::uint64_t seed : seeds()) {
    const std::vector<float> parameters = parameters_of(seed, {});
    const std::filesystem::path file = folder(seed) / "anchors.npy";
    // Of two files one alone is what a killed run left.
    if (std::filesystem::exists(file) && std::filesystem::exists(folder(seed) / "anchors.json")) {
      read_anchors(file, settings_.shape, fingerprint(parameters));
      std::cout << "anchors, seed " << seed << ": done already (" << file.filename().string() << ")\n";
      continue;
    }
    const double begin = now();
    const anchor_table table = anchors_of(parameters);
    write_anchors(file, table);
    std::cout << "anchors, seed " << seed << ": " << table.samples() << " of " << keys_of_training_pairs().size() << " pairs, "
              << fixed(now() - begin, 1) << " s\n";
    if (interrupts_.requested())
      throw interrupted("stopped after the anchors; the same command with --resume goes on", interrupts_.signal());
  }
}

void run::finetune() {
  read_corpus();
  for (const std::uint64_t seed : seeds()) {
    const std::vector<float> initial = parameters_of(seed, {});
    const std::filesystem::path file = folder(seed) / "anchors.npy";
    if (!std::filesystem::exists(file)) throw std::runtime_error(file.string() + " is not there: `sara_finetune anchors` makes it");
    const anchor_table anchors = read_anchors(file, settings_.shape, fingerprint(initial));
    const std::vector<std::int32_t> row_of_pair = anchors.rows_for(keys_of_training_pairs());
    for (const std::string& text : settings_.arms) {
      const arm a = parse_arm(text, settings_, seed);
      const std::vector<std::int32_t> rows = a.shuffled ? shuffled_rows(corpus_->data, row_of_pair, seed) : row_of_pair;
      step_batches batches = finetuning_batches(corpus_->data, a.rehearsal,
                                                {.sequences = settings_.sequences, .tokens = settings_.finetune_tokens, .seed = seed});
      for (auto& step : batches)
        for (training_sequence& s : step) {
          if (s.anchor_row < 0) continue;
          s.anchor_row = rows[static_cast<std::size_t>(s.anchor_row)];
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
  read_corpus();
  const part of = settings_.part == "test" ? part::test : part::validation;
  const double begin = now();
  for (const std::uint64_t seed : seeds()) {
    std::map<std::string, measured_sentences> frozen;
    std::vector<std::string> models = {pretrained};
    models.insert(models.end(), settings_.arms.begin(), settings_.arms.end());
    nlohmann::json results = {{"part", settings_.part}, {"models", nlohmann::json::object()}};
    for (const std::string& model : models) {
      const std::vector<float> parameters = parameters_of(seed, model == pretrained ? std::string() : model);
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
  if (!corpus_) write_settings(old_corpus_);   // the arms may be others
  const run_results results = read_results(out_);
  write_report(results, out_);
  std::cout << "\n" << summary_table(results) << "\n" << (out_ / "report.html").string() << "\n";
}

}   // namespace sara_finetune
