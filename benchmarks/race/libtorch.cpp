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
at::Tensor logits_of(const routing_problem& p) {
  return tensor_of(p.logits, {p.shape.layers, p.shape.sequences, p.shape.length, p.shape.experts});
}
at::Tensor anchors_of(const routing_problem& p) { return tensor_of(p.anchors, {p.shape.layers, p.shape.sequences, p.shape.experts}); }

struct tensors {
  at::Tensor logits, anchors, loss, gradient;
};

contestant whole(const std::string& how, const std::shared_ptr<tensors>& t, const routing_problem& p, std::function<void()> run) {
  return {.library = "libtorch", .job = whole_job, .how = how, .threads = 2, .run = std::move(run), .check = [t, &p] {
            return errors_of(t->loss.item<float>(), t->gradient.contiguous().data_ptr<float>(), p);
          }};
}

// As a user writes it: softmax, mean over tokens, Jensen-Shannon by its definition, backward().
contestant eager(const routing_problem& p) {
  const auto t = std::make_shared<tensors>(tensors{logits_of(p).requires_grad_(true), anchors_of(p), {}, {}});
  return whole("eager + autograd", t, p, [t] {
    t->logits.mutable_grad() = at::Tensor();
    const at::Tensor q = t->logits.softmax(-1).mean(2), m = (q + t->anchors) * 0.5;
    const at::Tensor js = 0.5 * ((t->anchors * (t->anchors.log() - m.log())).sum(-1) + (q * (q.log() - m.log())).sum(-1));
    const at::Tensor loss = js.mean();
    loss.backward();
    t->loss = loss.detach();
    t->gradient = t->logits.grad();
  });
}

// The expression of the method's published training code: the layers' logits stacked, softmax, attention mask, masked mean, both
// distributions clamped, Jensen-Shannon as two Kullback-Leibler divergences, a mean over layers and sequences, backward().
contestant published(const routing_problem& p) {
  struct state : tensors {
    std::vector<at::Tensor> layers;
    at::Tensor mask;   // [sequences, tokens]
  };
  const auto t = std::make_shared<state>();
  for (const at::Tensor& layer : logits_of(p).unbind(0)) t->layers.push_back(layer.clone().requires_grad_(true));
  t->anchors = anchors_of(p);
  t->mask = at::ones({p.shape.sequences, p.shape.length});
  contestant c = whole("published expression + autograd", t, p, [t] {
    for (at::Tensor& layer : t->layers) layer.mutable_grad() = at::Tensor();
    constexpr double least = 1e-8;
    const at::Tensor mask = t->mask.unsqueeze(-1);
    const at::Tensor probs = at::stack(t->layers).softmax(-1);
    const at::Tensor q = ((probs * mask).sum(2) / mask.sum(1).clamp_min(1)).clamp_min(least), a = t->anchors.clamp_min(least);
    const at::Tensor m = 0.5 * (q + a);
    const at::Tensor js = 0.5 * (a * (a.log() - m.log())).sum(-1) + 0.5 * (q * (q.log() - m.log())).sum(-1);
    const at::Tensor loss = js.mean(-1).mean();
    loss.backward();
    t->loss = loss.detach();
  });
  c.check = [t, &p] {
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& layer : t->layers) gradients.push_back(layer.grad());
    return errors_of(t->loss.item<float>(), at::stack(gradients).data_ptr<float>(), p);
  };
  return c;
}

// Divergences of the histograms q, and d loss / d probs of one token of each sequence, [layers, sequences, 1, experts].
at::Tensor step(const at::Tensor& q, const at::Tensor& anchors, const routing_shape& s, at::Tensor& loss) {
  const double units = static_cast<double>(s.layers * s.sequences);
  const at::Tensor m = (q + anchors) * 0.5, log_q = at::log(q / m), log_p = at::log(anchors / m);
  loss = (anchors * log_p + q * log_q).sum() * (0.5 / units);
  return (log_q * (0.5 / (units * static_cast<double>(s.length)))).unsqueeze(2);
}

// The gradient by its formula, p (g - sum p g), without autograd.
contestant by_formula(const routing_problem& p) {
  const auto t = std::make_shared<tensors>(tensors{logits_of(p), anchors_of(p), {}, {}});
  return whole("hand-written gradient", t, p, [t, s = p.shape] {
    const at::NoGradGuard no_autograd;
    const at::Tensor probs = t->logits.softmax(-1);
    const at::Tensor g = step(probs.mean(2), t->anchors, s, t->loss);
    const at::Tensor weighted = probs * g;
    t->gradient = weighted - probs * weighted.sum(-1, true);
  });
}

// The same with every large result written into memory that is kept from call to call.
contestant in_kept_memory(const routing_problem& p) {
  struct state : tensors {
    at::Tensor probs, weighted, dot;
  };
  const auto t = std::make_shared<state>();
  t->logits = logits_of(p);
  t->anchors = anchors_of(p);
  t->gradient = at::empty_like(t->logits);
  t->probs = at::empty_like(t->logits);
  t->weighted = at::empty_like(t->logits);
  t->dot = at::empty({p.shape.layers, p.shape.sequences, p.shape.length, 1});
  return whole("hand-written gradient, kept memory", t, p, [t, s = p.shape] {
    const at::NoGradGuard no_autograd;
    at::_softmax_out(t->probs, t->logits, -1, false);
    const at::Tensor g = step(t->probs.mean(2), t->anchors, s, t->loss);
    at::mul_out(t->weighted, t->probs, g);
    at::sum_out(t->dot, t->weighted, -1, true);
    at::mul_out(t->gradient, t->probs, t->dot);
    at::sub_out(t->gradient, t->weighted, t->gradient);
  });
}

}   // namespace

std::vector<contestant> libtorch_contestants(const routing_problem& p) {
  at::set_num_threads(2);
  return {eager(p), in_kept_memory(p), published(p), by_formula(p)};
}

std::vector<contestant> libtorch_softmax_contestants(const routing_problem& p) {
  at::set_num_threads(2);
  struct state {
    at::Tensor logits, grad_probs, given, probs, gradient;
  };
  const auto t = std::make_shared<state>();
  t->logits = logits_of(p);
  t->grad_probs = tensor_of(p.grad_probs, t->logits.sizes());
  t->given = tensor_of(std::vector<float>(p.probs.begin(), p.probs.end()), t->logits.sizes());
  t->probs = at::empty_like(t->logits);
  t->gradient = at::empty_like(t->logits);
  return {{.library = "libtorch",
           .job = softmax_forward,
           .how = "_softmax_out",
           .threads = 2,
           .run =
               [t] {
                 const at::NoGradGuard no_autograd;
                 at::_softmax_out(t->probs, t->logits, -1, false);
               },
           .check =
               [t, &p] {
                 return errors{largest_error(t->probs.data_ptr<float>(), p.probs), -1};
               }},
          {.library = "libtorch",
           .job = softmax_backward,
           .how = "_softmax_backward_data_out",
           .threads = 2,
           .run =
               [t] {
                 const at::NoGradGuard no_autograd;
                 at::_softmax_backward_data_out(t->gradient, t->grad_probs, t->given, -1, at::kFloat);
               },
           .check =
               [t, &p] {
                 return errors{-1, largest_error(t->gradient.data_ptr<float>(), p.softmax_gradient)};
               }}};
}

std::vector<contestant> libtorch_contestants(const top_k_problem& p) {
  at::set_num_threads(2);
  struct chosen {
    at::Tensor scores, values, indices;
  };
  const auto t = std::make_shared<chosen>(chosen{tensor_of(p.scores, {p.tokens, p.experts}), {}, {}});
  return {{.library = "libtorch",
           .job = top_k,
           .how = "topk",
           .threads = 2,
           .run =
               [t, &p] {
                 const at::NoGradGuard no_autograd;
                 std::tie(t->values, t->indices) = at::topk(t->scores, p.k, -1, true, true);
               },
           .check =
               [t, &p] {
                 return errors{largest_error(t->values.contiguous().data_ptr<float>(), p.want), -1};
               }}};
}

errors sara_from_libtorch_in_double(const routing_problem& p) {
  const routing_shape& s = p.shape;
  const at::Tensor logits = logits_of(p).to(at::kDouble).requires_grad_(true), anchors = anchors_of(p).to(at::kDouble);
  const at::Tensor q = logits.softmax(-1).mean(2), m = (q + anchors) * 0.5;
  const at::Tensor loss = (0.5 * ((anchors * (anchors / m).log()).sum(-1) + (q * (q / m).log()).sum(-1))).mean();
  loss.backward();

  std::vector<double> gradient(p.logits.size());
  double value = 0;
  sara::js_routing_into(
      sara::cpu_executor{},
      sara::js_routing_inputs<double>{.logits = sara::layers_view{logits.data_ptr<double>(), s.layers, s.tokens(), s.experts},
                                      .sequences = sara::sequences_view::uniform(s.sequences, s.length),
                                      .anchors = sara::layers_view{anchors.data_ptr<double>(), s.layers, s.sequences, s.experts}},
      {.loss = {&value, 1}, .grad_logits = sara::layers_view{gradient.data(), s.layers, s.tokens(), s.experts}});
  const at::Tensor g = logits.grad().contiguous();
  return {std::abs(value / loss.item<double>() - 1),
          largest_error(gradient, std::vector<double>(g.data_ptr<double>(), g.data_ptr<double>() + g.numel()))};
}

std::string libtorch_version() { return TORCH_VERSION; }

}   // namespace race
