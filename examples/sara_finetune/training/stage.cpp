#include "stage.hpp"

#include <chrono>
#include <cmath>
#include <iostream>

#include "../progress.hpp"
#include "../report/numbers.hpp"
#include "../storage/metrics_log.hpp"

namespace sara_finetune {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void refuse_other(const std::filesystem::path& file, const checkpoint& found, const char* what, const nlohmann::json& asked) {
  const nlohmann::json is = found.about.value(what, nlohmann::json());
  if (is != asked)
    throw std::runtime_error(file.string() + ": expected a checkpoint of " + what + " " + asked.dump() + ", found " + is.dump());
}

void refuse_others(const training_stage& of, const checkpoint& found) {
  refuse_other(of.checkpoint, found, "stage", of.stage);
  refuse_other(of.checkpoint, found, "arm", of.arm);
  refuse_other(of.checkpoint, found, "seed", of.seed);
  refuse_other(of.checkpoint, found, "corpus", of.corpus);
}

constexpr std::int64_t patience = 5;   // validations without a better one, after which a stage that keeps its best ends

// What a stage has come to, apart from the trainer's own state.
struct position {
  std::int64_t step = 0, tokens = 0, best_step = -1;
  double best = INFINITY;
  std::vector<float> best_parameters = {};
};

// Whether there is something left to do.
bool resume(const training_stage& of, const model_shape& shape, std::int64_t steps, trainer& training, position& at) {
  checkpoint from = read_checkpoint(of.checkpoint);
  check_shape(from, of.checkpoint, shape);
  refuse_others(of, from);
  refuse_other(of.checkpoint, from, "steps", steps);
  if (from.about.value("finished", false)) return false;
  const std::size_t size = training.parameters.size();
  const auto take = [&](const char* name) {
    array_of(from, of.checkpoint, name, size);
    return std::move(from.arrays.at(name));
  };
  at.step = from.about.at("step").get<std::int64_t>();
  at.tokens = from.about.at("tokens").get<std::int64_t>();
  training.parameters = take("parameters");
  training.state = {.mean = take("mean"), .square = take("square"), .step = at.step};
  if (from.arrays.contains("best")) {
    at.best_parameters = take("best");
    at.best = from.about.at("best").get<double>();
    at.best_step = from.about.at("best_step").get<std::int64_t>();
  }
  return true;
}

void save(const training_stage& of, const model_shape& shape, std::int64_t steps, const trainer& training, const position& at,
          bool finished) {
  checkpoint to;
  to.about = {{"stage", of.stage},   {"arm", of.arm},        {"seed", of.seed}, {"step", at.step},    {"steps", steps},
              {"tokens", at.tokens}, {"finished", finished}, {"shape", shape},  {"corpus", of.corpus}};
  if (at.best_step >= 0) {
    to.about["best"] = at.best;
    to.about["best_step"] = at.best_step;
  }
  if (finished) {
    to.arrays["parameters"] = of.keeps_best ? at.best_parameters : training.parameters;
  } else {
    to.arrays = {{"parameters", training.parameters}, {"mean", training.state.mean}, {"square", training.state.square}};
    if (at.best_step >= 0) to.arrays["best"] = at.best_parameters;
  }
  write_checkpoint(of.checkpoint, to);
}

nlohmann::json line_of(const training_stage& of, const position& at, std::int64_t steps) {
  return {{"stage", of.stage}, {"arm", of.arm}, {"step", at.step}, {"steps", steps}, {"tokens", at.tokens}};
}

}   // namespace

void train(const training_stage& of, const model_shape& shape, const trainer_options& how, const step_batches& batches,
           const objective& towards, const std::vector<float>& initial, sara::thread_pool& pool, const interrupt_guard& interrupts) {
  const auto steps = static_cast<std::int64_t>(batches.size());
  const std::string title = of.name() + ", seed " + std::to_string(of.seed);
  const bool anchored = towards.anchors != nullptr;
  trainer training(shape, how, pool);
  training.parameters = initial;
  position at;
  if (std::filesystem::exists(of.checkpoint)) {
    if (!resume(of, shape, steps, training, at)) {
      std::cout << title << ": done already (" << of.checkpoint.filename().string() << ")\n";
      return;
    }
    std::cout << title << ": goes on from step " << at.step << " of " << steps << "\n";
  }

  metrics_log log(of.metrics, of.stage, of.arm, at.step);
  const auto keep = [&](bool finished) {
    log.sync();   // the log is never behind its checkpoint
    save(of, shape, steps, training, at, finished);
  };
  progress_bar bar(title, steps, std::cerr, stderr_is_terminal(), {.first_step = at.step});
  const std::int64_t tokens_before = at.tokens;
  const double begin = now();
  double seconds = 0, sara_seconds = 0;
  while (at.step < steps) {
    const double step_begin = now(), rate = learning_rate_at(at.step, steps, of.warmup, of.rate);
    const step_figures seen = training.step(batches[static_cast<std::size_t>(at.step)], towards, rate);
    if (!std::isfinite(seen.loss) || !std::isfinite(seen.gradient_norm))
      throw std::runtime_error(
          of.name() + ": step " + std::to_string(at.step + 1) + ": the " + (std::isfinite(seen.loss) ? "gradient" : "loss") +
          " is not finite (cross-entropy " + fixed(seen.cross_entropy, 4) + ", balance " + fixed(seen.balance, 4) + ", divergence " +
          fixed(seen.divergence, 6) + "); " +
          (std::filesystem::exists(of.checkpoint) ? of.checkpoint.string() + " keeps the last good step" : "nothing was saved yet"));
    ++at.step;
    at.tokens += seen.tokens;
    seconds += seen.seconds;
    sara_seconds += seen.sara_seconds;

    nlohmann::json line = line_of(of, at, steps);
    line.update({{"loss", seen.loss},
                 {"cross_entropy", seen.cross_entropy},
                 {"balance", seen.balance},
                 {"divergence", anchored ? nlohmann::json(seen.divergence) : nlohmann::json()},
                 {"learning_rate", rate},
                 {"gradient_norm", seen.gradient_norm},
                 {"tokens_per_second", static_cast<double>(seen.tokens) / (now() - step_begin)}});
    log.write(line);
    progress_figures figures{.tokens = at.tokens - tokens_before, .losses = {{"loss", seen.loss}, {"ce", seen.cross_entropy}}};
    if (anchored) figures.losses.emplace_back("js", seen.divergence);
    bar.update(at.step, figures);

    if (at.step * of.validations / steps != (at.step - 1) * of.validations / steps) {
      const validation found = of.validate(training.parameters);
      line = line_of(of, at, steps);
      line["validation"] = found.bits_per_byte;
      log.write(line);
      if (of.keeps_best && found.mean < at.best) {
        at.best = found.mean;
        at.best_step = at.step;
        at.best_parameters = training.parameters;
      }
      if (of.keeps_best && (at.step - at.best_step) * of.validations >= patience * steps) break;
    }
    if (interrupts.requested() && at.step < steps) {
      keep(false);
      throw interrupted("stopped after step " + std::to_string(at.step) + " of " + std::to_string(steps) + " of " + of.name() + ", which " +
                            of.checkpoint.string() + " keeps; the same command with --resume goes on from there",
                        interrupts.signal());
    }
    if (at.step % of.save_every == 0 && at.step < steps) keep(false);
  }
  bar.finish();
  if (of.keeps_best && at.best_step < 0) throw std::runtime_error(of.name() + ": no validation gave a number");
  keep(true);

  const double took = now() - begin;
  std::cout << title << ": " << at.step << " steps, " << fixed(took, 1) << " s, "
            << fixed(static_cast<double>(at.tokens - tokens_before) / took, 0) << " tokens/s";
  if (of.keeps_best) std::cout << ", best validation " << fixed(at.best, 4) << " bits a byte at step " << at.best_step;
  if (anchored && towards.lambda > 0)
    std::cout << "; the SARA term took " << fixed(100 * sara_seconds / seconds, 2) << " % of the threads' time";
  std::cout << "\n";
}

std::vector<float> trained_parameters(const training_stage& of, const model_shape& shape) {
  const std::filesystem::path& file = of.checkpoint;
  if (!std::filesystem::exists(file)) throw std::runtime_error(file.string() + " is not there: `sara_finetune " + of.stage + "` makes it");
  checkpoint from = read_checkpoint(file);
  check_shape(from, file, shape);
  refuse_others(of, from);
  if (!from.about.value("finished", false))
    throw std::runtime_error(file.string() + " is of step " + from.about.value("step", nlohmann::json()).dump() + " of " +
                             from.about.value("steps", nlohmann::json()).dump() + ": `sara_finetune " + of.stage + " --resume` goes on");
  array_of(from, file, "parameters", static_cast<std::size_t>(parameter_count(blocks(shape))));
  return std::move(from.arrays.at("parameters"));
}

}   // namespace sara_finetune
