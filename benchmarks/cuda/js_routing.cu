// The fused loss on the GPU: value and gradient, gradient accumulated, value alone; 48 layers in one call, and one.
//
// Bytes, of one element of logits (T) and gradient (G): T + G (bf16 4, bf16 logits with an fp32 gradient 6, fp32 8), with the logits read
// twice 2 T + G (6, 8, 12); accumulate G more, value alone T. What has [layers, sequences, experts] is left out: 1 / length of it.
// `scratch %`: of the logits' bytes.
#include <cuda_bf16.h>
#include <sara/js_routing.hpp>

#include "measure.cuh"
#include "problem.hpp"

namespace benchmarks {
namespace {

enum class kind { overwrite, accumulate, value };
constexpr const char* kind_names[] = {"overwrite", "accumulate", "value"};

template <class T, class G>
constexpr const char* storage_name = std::is_same_v<T, float>   ? "fp32"
                                     : std::is_same_v<G, float> ? "bf16-fp32"
                                                                : "bf16";

// Made once for the calls that stand next to each other.
template <class T> std::shared_ptr<const routing_problem<T>> problem_of(const batch_shape& shape) {
  static std::shared_ptr<const routing_problem<T>> known;
  if (!known || known->shape != shape) {
    known.reset();
    known = std::make_shared<const routing_problem<T>>(shape);
  }
  return known;
}

// A batch on the device, and where its results go.
template <class T, class G> struct batch_on_device {
  batch_on_device(std::shared_ptr<const routing_problem<T>> p, index_t sets, kind what_, bool list)
      : problem(std::move(p)),
        what(what_),
        logits(problem->logits, sets),
        anchors(problem->anchors),
        offsets(problem->offsets),
        loss(sets) {
    const batch_shape& s = problem->shape;
    if (what == kind::accumulate) {   // as large as the gradient, so that the check sees both
      before.resize(problem->logits.size());
      const auto noise = random_logits<float>(s.tokens * s.experts, 3);
      const double size = *std::max_element(problem->gradient.begin(), problem->gradient.end()) / 4;
      for (std::size_t i = 0; i < before.size(); ++i)
        sara::store_value(before[i], static_cast<float>(size * static_cast<double>(noise[i % noise.size()])));
      gradient = device_array<G>(before, sets);
    } else if (what == kind::overwrite) {
      gradient = device_array<G>(s.elements() * sets);
    }
    for (index_t set = 0; set < sets; ++set) {
      in.push_back({.logits = sara::layers_view<const T>(logits.data() + set * s.elements(), s.layers, s.tokens, s.experts),
                    .sequences = problem->view(offsets.data()),
                    .anchors = sara::layers_view<const float>(anchors.data(), s.layers, problem->sequences, s.experts)});
      sara::js_routing_outputs<T, G> to{.loss = {loss.data() + set, 1}};
      if (what != kind::value) to.grad_logits = sara::layers_view<G>(gradient.data() + set * s.elements(), s.layers, s.tokens, s.experts);
      out.push_back(to);
    }
    if (list) {   // the same layers by two lists, in another order than memory has, so that no stride tells them
      std::vector<index_t> order(static_cast<std::size_t>(s.layers));
      for (index_t l = 0; l < s.layers; ++l) order[static_cast<std::size_t>(l)] = l;
      std::shuffle(order.begin(), order.end(), std::mt19937_64(6));
      lists_of_logits.resize(in.size());
      lists_of_gradients.resize(in.size());
      lists_of_anchors.resize(in.size());
      for (std::size_t set = 0; set < in.size(); ++set) {
        for (const index_t l : order) {
          lists_of_logits[set].push_back(in[set].logits[l]);
          lists_of_gradients[set].push_back(out[set].grad_logits[l]);
          lists_of_anchors[set].push_back(in[set].anchors[l]);
        }
        in[set].logits = lists_of_logits[set];
        out[set].grad_logits = lists_of_gradients[set];
        in[set].anchors = lists_of_anchors[set];
      }
    }
    options.mode = what == kind::accumulate ? sara::gradient_mode::accumulate : sara::gradient_mode::overwrite;
    scratch_bytes = sara::js_routing_workspace_bytes(in[0], out[0], options);
    scratch = device_array<char>(static_cast<index_t>(scratch_bytes) * sets);
  }

  void run(index_t set, cudaStream_t stream) const {
    const auto at = static_cast<std::size_t>(set);
    sara::js_routing_into(sara::cuda_executor{stream, sara::workspace{scratch.data() + at * scratch_bytes, scratch_bytes}}, in[at], out[at],
                          options);
  }
  double error(index_t set) const {
    const double of_loss = problem->error_of_loss(loss.read(set, 1)[0]);
    if (what == kind::value || !(of_loss <= tolerance_of<float>)) return of_loss <= tolerance_of<float> ? of_loss : INFINITY;
    const auto got = gradient.read(set * problem->shape.elements(), problem->shape.elements());
    if (what == kind::overwrite) return largest_error(got, problem->gradient);
    std::vector<double> want = as_double(before);
    for (std::size_t i = 0; i < want.size(); ++i) want[i] += problem->gradient[i];
    return largest_error(got, want);
  }

  std::shared_ptr<const routing_problem<T>> problem;
  kind what;
  device_array<T> logits;
  device_array<float> anchors;
  device_array<std::int32_t> offsets;
  device_array<float> loss;
  std::vector<G> before;
  device_array<G> gradient;
  std::vector<sara::js_routing_inputs<T>> in;
  std::vector<sara::js_routing_outputs<T, G>> out;
  std::vector<std::vector<sara::matrix_view<const T>>> lists_of_logits;
  std::vector<std::vector<sara::matrix_view<G>>> lists_of_gradients;
  std::vector<std::vector<sara::matrix_view<const float>>> lists_of_anchors;
  sara::js_routing_options options;
  std::size_t scratch_bytes = 0;
  device_array<char> scratch;
};

template <class T, class G>
void add_one(const batch_shape& shape, kind what = kind::overwrite, const char* tail = "", timing how = timing::cold, bool list = false) {
  const std::string name =
      std::string("js_routing/") + storage_name<T, G> + "/" + text(shape) + "/" + kind_names[static_cast<int>(what)] + tail;
  add(name, [=] {
    const double elements = static_cast<double>(shape.elements());
    const double of_gradient = what == kind::value ? 0.0 : what == kind::accumulate ? 2.0 * sizeof(G) : 1.0 * sizeof(G);
    const double bytes = elements * (sizeof(T) + of_gradient);
    const index_t sets = how == timing::cold ? sets_for(bytes) : 1;
    const auto batch = std::make_shared<batch_on_device<T, G>>(problem_of<T>(shape), sets, what, list);
    return timed_call{.bytes = bytes,
                      .bytes_twice = what == kind::value ? 0 : bytes + elements * sizeof(T),
                      .tolerance = what == kind::value ? tolerance_of<float> : tolerance_of<G>,
                      .how = how,
                      .sets = sets,
                      .run = [batch](index_t set, cudaStream_t stream) { batch->run(set, stream); },
                      .error = [batch](index_t set) { return batch->error(set); },
                      .also = {{"scratch %", 100 * static_cast<double>(batch->scratch_bytes) / (elements * sizeof(T))}}};
  });
}

using bf16 = __nv_bfloat16;

void add_all(const batch_size& size) {
  const auto shape = [&](index_t length, index_t experts = 128, batching how = batching::uniform) {
    return batch_shape{size.layers, size.tokens, experts, std::min(length, size.tokens), how};
  };
  for (const batch_shape& s :
       {shape(512), shape(1024), shape(4096), shape(1024, 128, batching::ragged), shape(1024, 128, batching::interleaved)}) {
    add_one<bf16, bf16>(s);
    add_one<bf16, float>(s);
  }
  for (const kind what : {kind::accumulate, kind::value}) {
    add_one<bf16, bf16>(shape(1024), what);
    add_one<bf16, float>(shape(1024), what);
  }
  add_one<bf16, bf16>(shape(1024), kind::overwrite, "/list of layers", timing::cold, true);
  for (const batch_shape& s : {shape(512), shape(1024), shape(4096), shape(1024, 128, batching::ragged)}) add_one<float, float>(s);
  for (const kind what : {kind::accumulate, kind::value}) add_one<float, float>(shape(1024), what);
  for (const index_t experts : {60, 64, 256, 384}) {
    add_one<bf16, bf16>(shape(1024, experts));
    add_one<float, float>(shape(1024, experts));
  }

  const batch_shape one_layer{1, size.tokens, 128, std::min<index_t>(1024, size.tokens)};
  add_one<bf16, bf16>(one_layer, kind::overwrite, "/replayed", timing::replayed);
  add_one<bf16, bf16>(one_layer, kind::overwrite, "/one by one", timing::one_by_one);
  add_one<bf16, bf16>(one_layer, kind::overwrite, "/cold");
  add_one<bf16, float>(one_layer, kind::overwrite, "/replayed", timing::replayed);
  add_one<float, float>(one_layer, kind::overwrite, "/replayed", timing::replayed);
}

}   // namespace
}   // namespace benchmarks

int main(int argc, char** argv) { return benchmarks::run(argc, argv, benchmarks::add_all); }
