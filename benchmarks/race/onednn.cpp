#include <omp.h>

#include <dnnl.hpp>
#include <memory>

#include "contestant.hpp"

namespace race {
namespace {

using benchmarks::largest_error;
using dnnl::memory;

struct softmax {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  memory::desc rows;
  dnnl::softmax_forward::primitive_desc forward;
  std::vector<float> probs, gradient;

  explicit softmax(const routing_problem& p)
      : rows({p.shape.layers * p.shape.tokens(), p.shape.experts}, memory::data_type::f32, memory::format_tag::ab),
        forward(dnnl::softmax_forward::desc(dnnl::prop_kind::forward_training, rows, 1), engine) {}

  memory view(const std::vector<float>& values) const { return memory(rows, engine, const_cast<float*>(values.data())); }
};

}   // namespace

std::vector<contestant> onednn_softmax_contestants(const routing_problem& p) {
  omp_set_num_threads(2);
  std::vector<contestant> all;

  const auto f = std::make_shared<softmax>(p);
  f->probs.assign(p.logits.size(), 1.0f);
  all.push_back({.library = "oneDNN",
                 .job = softmax_forward,
                 .how = "softmax",
                 .threads = 2,
                 .run =
                     [f, primitive = dnnl::softmax_forward(f->forward), from = f->view(p.logits), to = f->view(f->probs)]() mutable {
                       primitive.execute(f->stream, {{DNNL_ARG_SRC, from}, {DNNL_ARG_DST, to}});
                       f->stream.wait();
                     },
                 .check =
                     [f, &p] {
                       return errors{largest_error(f->probs, p.probs), -1};
                     }});

  const auto b = std::make_shared<softmax>(p);
  b->probs.assign(p.probs.begin(), p.probs.end());
  b->gradient.assign(p.logits.size(), 1.0f);
  const dnnl::softmax_backward::primitive_desc backward(dnnl::softmax_backward::desc(b->rows, b->rows, 1), b->engine, b->forward);
  all.push_back({.library = "oneDNN",
                 .job = softmax_backward,
                 .how = "softmax backward",
                 .threads = 2,
                 .run =
                     [b, primitive = dnnl::softmax_backward(backward), probs = b->view(b->probs), grad_probs = b->view(p.grad_probs),
                      to = b->view(b->gradient)]() mutable {
                       primitive.execute(b->stream, {{DNNL_ARG_DST, probs}, {DNNL_ARG_DIFF_DST, grad_probs}, {DNNL_ARG_DIFF_SRC, to}});
                       b->stream.wait();
                     },
                 .check =
                     [b, &p] {
                       return errors{-1, largest_error(b->gradient, p.softmax_gradient)};
                     }});
  return all;
}

std::string onednn_version() {
  const dnnl_version_t& v = *dnnl_version();
  return std::to_string(v.major) + "." + std::to_string(v.minor) + "." + std::to_string(v.patch);
}

}   // namespace race
