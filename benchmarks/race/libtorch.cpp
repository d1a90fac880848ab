#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/api/include/torch/version.h>

#include <memory>
#include <sara/js_routing.hpp>

#include "contestant.hpp"

namespace race {
namespace {

using benchmarks::largest_error;

at::Tensor tensor_of(const std::vector<float>& values, at::IntArrayRef shape) {
  return at::from_blob(const_cast<float*>(values.data()), shape, at::kFloat).clone();
}

errors errors_of(const at::Tensor& loss, const at::Tensor& gradient, const routing_problem& p) {
  const float value = loss.item<float>();
  const at::Tensor g = gradient.contiguous();
  return {largest_error(&value, {p.want.loss}), largest_error(g.data_ptr<float>(), p.want.grad)};
}

// As a user writes it: softmax, mean over tokens, Jensen-Shannon by its definition, backward().
contestant eager(const routing_problem& p) {
  struct tensors {
    at::Tensor logits, anchors, loss;
  };
  const routing_shape& s = p.shape;
  const auto t = std::make_shared<tensors>(tensors{
      tensor_of(p.logits, {s.sequences, s.length, s.experts}).requires_grad_(true), tensor_of(p.anchors, {s.sequences, s.experts}), {}});
  return {"libtorch eager + autograd, forward and backward",
          [t] {
            t->logits.mutable_grad() = at::Tensor();
            const at::Tensor q = t->logits.softmax(-1).mean(1), m = (q + t->anchors) * 0.5;
            const at::Tensor js = 0.5 * ((t->anchors * (t->anchors.log() - m.log())).sum(-1) + (q * (q.log() - m.log())).sum(-1));
            const at::Tensor loss = js.mean();
            loss.backward();
            t->loss = loss.detach();
          },
          [t, &p] { return errors_of(t->loss, t->logits.grad(), p); }};
}

// Divergences of the histograms q, and d loss / d probs of one token of each sequence, [sequences, 1, experts].
at::Tensor step(const at::Tensor& q, const at::Tensor& anchors, const routing_shape& s, at::Tensor& loss) {
  const at::Tensor m = (q + anchors) * 0.5, log_q = at::log(q / m), log_p = at::log(anchors / m);
  loss = (anchors * log_p + q * log_q).sum() * (0.5 / static_cast<double>(s.sequences));
  return (log_q * (0.5 / static_cast<double>(s.sequences * s.length))).unsqueeze(1);
}

// The gradient by its formula, p (g - sum p g), without autograd.
contestant by_formula(const routing_problem& p) {
  struct tensors {
    at::Tensor logits, anchors, loss, gradient;
  };
  const routing_shape s = p.shape;
  const auto t = std::make_shared<tensors>(
      tensors{tensor_of(p.logits, {s.sequences, s.length, s.experts}), tensor_of(p.anchors, {s.sequences, s.experts}), {}, {}});
  return {"libtorch, hand-written gradient",
          [t, s] {
            const at::NoGradGuard no_autograd;
            const at::Tensor probs = t->logits.softmax(-1);
            const at::Tensor g = step(probs.mean(1), t->anchors, s, t->loss);
            const at::Tensor weighted = probs * g;
            t->gradient = weighted - probs * weighted.sum(-1, true);
          },
          [t, &p] { return errors_of(t->loss, t->gradient, p); }};
}

// The same with every large result written into memory that is kept from call to call.
contestant in_kept_memory(const routing_problem& p) {
  struct tensors {
    at::Tensor logits, anchors, loss, probs, weighted, dot, gradient;
  };
  const routing_shape s = p.shape;
  const auto t = std::make_shared<tensors>();
  t->logits = tensor_of(p.logits, {s.sequences, s.length, s.experts});
  t->anchors = tensor_of(p.anchors, {s.sequences, s.experts});
  t->probs = at::empty_like(t->logits);
  t->weighted = at::empty_like(t->logits);
  t->gradient = at::empty_like(t->logits);
  t->dot = at::empty({s.sequences, s.length, 1});
  return {"libtorch, hand-written gradient, kept memory",
          [t, s] {
            const at::NoGradGuard no_autograd;
            at::_softmax_out(t->probs, t->logits, -1, false);
            const at::Tensor g = step(t->probs.mean(1), t->anchors, s, t->loss);
            at::mul_out(t->weighted, t->probs, g);
            at::sum_out(t->dot, t->weighted, -1, true);
            at::mul_out(t->gradient, t->probs, t->dot);
            at::sub_out(t->gradient, t->weighted, t->gradient);
          },
          [t, &p] { return errors_of(t->loss, t->gradient, p); }};
}

}   // namespace

std::vector<contestant> libtorch_contestants(const routing_problem& p) {
  at::set_num_threads(2);
  return {eager(p), by_formula(p), in_kept_memory(p)};
}

std::vector<contestant> libtorch_contestants(const top_k_problem& p) {
  at::set_num_threads(2);
  struct tensors {
    at::Tensor scores, values, indices;
  };
  const auto t = std::make_shared<tensors>(tensors{tensor_of(p.scores, {p.tokens, p.experts}), {}, {}});
  return {{"libtorch, topk",
           [t, &p] {
             const at::NoGradGuard no_autograd;
             std::tie(t->values, t->indices) = at::topk(t->scores, p.k, -1, true, true);
           },
           [t, &p] {
             return errors{largest_error(t->values.contiguous().data_ptr<float>(), p.want), -1};
           }}};
}

errors sara_from_libtorch_in_double(const routing_problem& p) {
  const routing_shape& s = p.shape;
  const at::Tensor logits = tensor_of(p.logits, {s.sequences, s.length, s.experts}).to(at::kDouble).requires_grad_(true);
  const at::Tensor anchors = tensor_of(p.anchors, {s.sequences, s.experts}).to(at::kDouble);
  const at::Tensor q = logits.softmax(-1).mean(1), m = (q + anchors) * 0.5;
  const at::Tensor loss = (0.5 * ((anchors * (anchors / m).log()).sum(-1) + (q * (q / m).log()).sum(-1))).mean();
  loss.backward();

  std::vector<double> gradient(p.logits.size());
  double value = 0;
  sara::js_routing_into(sara::cpu_executor{},
                        sara::js_routing_inputs<double>{.logits = sara::matrix_view{logits.data_ptr<double>(), s.tokens(), s.experts},
                                                        .sequences = sara::sequences_view::uniform(s.sequences, s.length),
                                                        .anchors = sara::matrix_view{anchors.data_ptr<double>(), s.sequences, s.experts}},
                        {.loss = {&value, 1}, .grad_logits = sara::matrix_view{gradient.data(), s.tokens(), s.experts}});
  const at::Tensor g = logits.grad().contiguous();
  return {std::abs(value / loss.item<double>() - 1),
          largest_error(gradient, std::vector<double>(g.data_ptr<double>(), g.data_ptr<double>() + g.numel()))};
}

std::string libtorch_version() { return "libtorch " TORCH_VERSION " (" + std::to_string(at::get_num_threads()) + " threads)"; }

}   // namespace race
