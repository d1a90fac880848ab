// The SARA fine-tuning loop, from text to report.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <Eigen/Core>
#include <csignal>
#include <exception>
#include <iostream>
#include <new>

#include "run.hpp"

namespace {

using sara_finetune::settings;

struct command {
  settings how = {};
  std::filesystem::path out = "sara-run";
  bool resume = false;
  std::string stage = {};
  std::string window = {};   // as it was given: what it may be depends on the folder's settings
};

constexpr const char* stages[][2] = {{"run", "all stages, in this order"},
                                     {"pretrain", "a model from text that is mostly high-resource"},
                                     {"anchors", "its routing of the high-resource side of each pair"},
                                     {"finetune", "on the low-resource side, once for each arm"},
                                     {"evaluate", "bits a byte, cloze, divergences, on text that no stage has seen"},
                                     {"report", "a table, figures and report.html"}};

// Parsed onto `to`: what no flag names stays as it is.
void parse(int argc, char** argv, command& to) {
  CLI::App app{
      "Pretrains a small multilingual mixture-of-experts model, aligns its routing across languages by the SARA loss (arXiv "
      "2606.25821), and tells what that did.",
      "sara_finetune"};
  app.require_subcommand(1);
  app.fallthrough();
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);   // a command is repeated with one flag more
  for (const auto& [name, what] : stages) {
    CLI::App* const stage = app.add_subcommand(name, what)->callback([&to, chosen = std::string(name)] { to.stage = chosen; });
    stage->set_help_flag();   // `run --help` tells all flags, as --help does
  }
  settings& s = to.how;

  const char* const run = "The run";
  app.add_option("--out", to.out, "its folder")->capture_default_str()->group(run);
  app.add_flag("--resume", to.resume, "go on with what the folder holds; begin where it holds nothing")->group(run);
  app.add_option("--threads", s.threads, "0: as many as there are; the same bits for any number")->capture_default_str()->group(run);
  app.add_option("--seed", s.seed, "the first seed")->capture_default_str()->group(run);
  app.add_option("--seeds", s.seeds, "how many, from the first on")->capture_default_str()->group(run);
  app.add_option("--save-every", s.save_every, "steps between checkpoints")->capture_default_str()->group(run);

  const char* const text = "Text";
  app.add_option("--parallel", s.parallel, "sentence pairs, .tmx or HIGH-LOW.tsv; may be given several times")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group(text);
  app.add_option("--text", s.text, "LANG=FILE, a sentence a line: more to pretrain on; may be given several times")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group(text);
  app.add_option("--high", s.high, "the high-resource language")->capture_default_str()->group(text);
  app.add_option("--corpus", s.corpus, "what the report calls it")->group(text);
  app.add_flag("--illustrative", s.illustrative, "the report says that this corpus is too small to learn from")->group(text);

  const char* const model = "The model";
  app.add_option("--vocabulary", s.shape.vocabulary, "tokens that SentencePiece learns")->capture_default_str()->group(model);
  app.add_option("--context", s.shape.context, "tokens; longer pairs are left out and counted")->capture_default_str()->group(model);
  app.add_option("--layers", s.shape.layers)->capture_default_str()->group(model);
  app.add_option("--width", s.shape.width)->capture_default_str()->group(model);
  app.add_option("--heads", s.shape.heads)->capture_default_str()->group(model);
  app.add_option("--experts", s.shape.experts)->capture_default_str()->group(model);
  app.add_option("--chosen", s.shape.chosen, "experts of a token (top-k)")->capture_default_str()->group(model);
  app.add_option("--hidden", s.shape.hidden, "width of an expert")->capture_default_str()->group(model);

  const char* const steps = "Each step";
  app.add_option("--sequences", s.sequences)->capture_default_str()->group(steps);
  app.add_option("--micro-batches", s.micro_batches, "parts that are computed side by side")->capture_default_str()->group(steps);
  app.add_option("--weight-decay", s.weight_decay, "of AdamW (0.9, 0.95)")->capture_default_str()->group(steps);
  app.add_option("--clip", s.clip, "the gradient's longest norm")->capture_default_str()->group(steps);
  app.add_option("--warmup", s.warmup, "share of the steps")->capture_default_str()->group(steps);
  app.add_option("--balance", s.balance, "weight of the Switch balance loss")->capture_default_str()->group(steps);

  const char* const pretraining = "Pretraining";
  app.add_option("--pretrain-tokens", s.pretrain_tokens)->capture_default_str()->group(pretraining);
  app.add_option("--pretrain-rate", s.pretrain_rate, "peak learning rate")->capture_default_str()->group(pretraining);
  app.add_option("--low-share", s.low_share, "low-resource share of each batch")->capture_default_str()->group(pretraining);
  app.add_option("--low-sentences", s.low_sentences, "share of the low-resource sentences that are read at all")
      ->capture_default_str()
      ->group(pretraining);
  app.add_option("--validations", s.validations, "of each stage")->capture_default_str()->group(pretraining);

  const char* const tuning = "Fine-tuning";
  app.add_option("--finetune-tokens", s.finetune_tokens)->capture_default_str()->group(tuning);
  app.add_option("--finetune-rate", s.finetune_rate, "peak learning rate")->capture_default_str()->group(tuning);
  app.add_option("--rehearsal", s.rehearsal, "high-resource share of each batch")->capture_default_str()->group(tuning);
  app.add_option("--lambda", s.lambda, "weight of the SARA loss")->capture_default_str()->group(tuning);
  app.add_option("--window", to.window, "FIRST-LAST: the layers that are aligned")
      ->default_str(std::to_string(s.window_first) + "-" + std::to_string(s.window_last))
      ->group(tuning);
  app.add_option("--anchors-keep", s.anchors_keep, "share of the pairs that get an anchor, those that the model knows best")
      ->capture_default_str()
      ->group(tuning);
  app.add_option("--arms", s.arms,
                 "any of plain, sara, shuffled, all-layers, random-window, each with +lambda=X, +window=FIRST-LAST, +rehearsal=X as wished")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->delimiter(',')
      ->capture_default_str()
      ->group(tuning);
  app.add_option("--part", s.part, "that is evaluated: test or validation")->capture_default_str()->group("Evaluation");

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    // Not app.exit(), which tells a subcommand's own flags, and they have none.
    std::cout << app.get_formatter()->make_help(&app, app.get_name(), CLI::AppFormatMode::Normal);
    std::exit(0);
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e));
  }
}

// So that a run may be gone on with from anywhere.
void make_absolute(settings& how) {
  const auto absolute = [](const std::string& file) { return std::filesystem::absolute(file).lexically_normal().string(); };
  for (std::string& file : how.parallel) file = absolute(file);
  for (std::string& text : how.text)
    if (const std::size_t equals = text.find('='); equals != std::string::npos)
      text = text.substr(0, equals + 1) + absolute(text.substr(equals + 1));
}

int stage_by_stage(int argc, char** argv) {
  command asked;
  parse(argc, argv, asked);
  // A folder's settings are the defaults of what goes on in it.
  const std::filesystem::path echo = asked.out / "settings.json";
  const bool begins = asked.stage == "run" || asked.stage == "pretrain";
  if (std::filesystem::exists(echo)) {
    command again{.how = sara_finetune::read_settings(echo).get<settings>()};
    parse(argc, argv, again);
    asked = again;
  } else if (!begins) {
    throw std::runtime_error(asked.out.string() + " holds no run: `sara_finetune pretrain` or `run` begins one");
  }
  if (!asked.window.empty())
    sara_finetune::parse_window(asked.window, "--window", asked.how.shape.layers, asked.how.window_first, asked.how.window_last);
  make_absolute(asked.how);

  sara_finetune::run run(asked.how, asked.out, asked.resume || !begins);
  const bool all = asked.stage == "run";
  if (all || asked.stage == "pretrain") run.pretrain();
  if (all || asked.stage == "anchors") run.make_anchors();
  if (all || asked.stage == "finetune") run.finetune();
  if (all || asked.stage == "evaluate") run.evaluate();
  if (all || asked.stage == "report") run.report();

  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  std::cout << "peak memory: " << used.ru_maxrss / 1024 << " MiB\n";
  return 0;
}

}   // namespace

int main(int argc, char** argv) {
  Eigen::setNbThreads(1);          // the trainer's threads are its own
  std::signal(SIGXFSZ, SIG_IGN);   // a file that grows too large is an error like any other
  try {
    return stage_by_stage(argc, argv);
  } catch (const sara_finetune::interrupted& e) {
    std::cerr << "sara_finetune: " << e.what() << "\n";
    return 128 + e.signal;
  } catch (const std::bad_alloc&) {
    std::cerr << "sara_finetune: there is not enough memory for a run of these settings\n";
    return 1;
  } catch (const std::exception& e) {
    std::cerr << "sara_finetune: " << e.what() << "\n";
    return 1;
  }
}
