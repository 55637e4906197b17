#include "ops/normalization.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <array>

#include "kernels/normalization.h"
#include "ops/tensors.h"

namespace wgan_fast {

using Optional = std::optional<Tensor>;

std::tuple<Tensor, Tensor> dispatch_normalization(const Tensor& x, const Optional& weight, const Optional& bias,
                                                  at::IntArrayRef shape, double eps, bool centered) {
  static const auto op = find_operator<std::tuple<Tensor, Tensor>(
      const Tensor&, const Optional&, const Optional&, at::IntArrayRef, double, bool)>("wgan_fast::normalization");
  return op.call(x, weight, bias, shape, eps, centered);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Mask = std::array<bool, 3>;
using Three = std::tuple<Tensor, Tensor, Tensor>;

Three dispatch_backward(const Tensor& grad, const Tensor& x, const Tensor& statistics, const Optional& weight,
                        at::IntArrayRef shape, double eps, bool centered, Mask mask) {
  static const auto op = find_operator<Three(const Tensor&, const Tensor&, const Tensor&, const Optional&,
                                             at::IntArrayRef, double, bool, Mask)>("wgan_fast::normalization_backward");
  return op.call(grad, x, statistics, weight, shape, eps, centered, mask);
}

Three dispatch_double_backward(const Tensor& grad_grad, const Tensor& grad, const Tensor& x, const Tensor& statistics,
                               const Optional& weight, at::IntArrayRef shape, double eps, bool centered,
                               bool weight_wanted) {
  static const auto op =
      find_operator<Three(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Optional&, at::IntArrayRef,
                          double, bool, bool)>("wgan_fast::normalization_double_backward");
  return op.call(grad_grad, grad, x, statistics, weight, shape, eps, centered, weight_wanted);
}

// Sums over rows are those of parts, added up, which do not depend on the number of threads. A part costs three passes
// over as many numbers as there are parameters, so it has several rows.
constexpr int64_t MOST_PARTS = 16, LEAST_ROWS = 8;

struct Layout {
  Rows rows;
  int64_t count;  // of rows

  int64_t parameters() const { return rows.groups * rows.channels; }
  int64_t rows_per_part() const { return std::max<int64_t>(LEAST_ROWS, (count + MOST_PARTS - 1) / MOST_PARTS); }
  int64_t parts() const { return (count + rows_per_part() - 1) / rows_per_part(); }
  int64_t grain() const { return std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, rows.length())); }
};

void check_floating(const Tensor& tensor, const char* name) {
  TORCH_CHECK_TYPE(is_supported(tensor.scalar_type()), name, ": expected float16, bfloat16, float32 or float64, got ",
                   tensor.scalar_type());
  TORCH_CHECK_TYPE(tensor.layout() == at::kStrided, name, ": expected a dense tensor, got layout ", tensor.layout());
}

Layout layout_of(const Tensor& x, at::IntArrayRef shape, bool centered) {
  check_floating(x, "x");
  TORCH_CHECK_VALUE(shape.size() == 3 && shape[0] > 0 && shape[1] > 0 && shape[2] > 0,
                    "shape: expected groups, channels and inner elements, all positive, got ", shape);
  const Rows rows{shape[0], shape[1], shape[2], centered};
  const int64_t sample = rows.groups * rows.length();
  TORCH_CHECK_VALUE(x.numel() % sample == 0, "shape: ", shape, " does not divide the ", x.numel(), " elements of x");
  TORCH_CHECK_VALUE(!x.is_cuda() || sample < SAMPLE_LIMIT_CUDA,
                    "shape: expected samples of fewer than 2^31 elements on CUDA, got ", sample);
  return {rows, x.numel() / rows.length()};
}

void check_parameter(const Optional& parameter, const char* name, const Tensor& x, const Layout& layout) {
  if (!parameter) return;
  TORCH_CHECK_VALUE(parameter->device() == x.device(), name, " is on ", parameter->device(), " and x on ", x.device());
  TORCH_CHECK_TYPE(parameter->scalar_type() == x.scalar_type(), name, " is ", parameter->scalar_type(), " and x ",
                   x.scalar_type());
  TORCH_CHECK_VALUE(parameter->dim() == 1 && parameter->numel() == layout.parameters(), name, ": expected shape [",
                    layout.parameters(), "], got ", parameter->sizes());
}

void check_statistics(const Tensor& statistics, const Tensor& x, const Layout& layout) {
  TORCH_CHECK_TYPE(statistics.scalar_type() == accumulate_type(x.scalar_type()), "statistics: expected ",
                   accumulate_type(x.scalar_type()), ", got ", statistics.scalar_type());
  TORCH_CHECK_VALUE(statistics.is_contiguous() && statistics.dim() == 2 && statistics.size(0) == layout.count &&
                        statistics.size(1) == STATISTICS,
                    "statistics: expected shape [", layout.count, ", ", STATISTICS, "], got ", statistics.sizes());
  TORCH_CHECK_VALUE(statistics.device() == x.device(), "statistics is on ", statistics.device(), " and x on ",
                    x.device());
}

Tensor contiguous(const Optional& tensor) { return tensor ? tensor->contiguous() : Tensor(); }
Tensor empty_contiguous(const Tensor& like) { return at::empty(like.sizes(), like.options()); }

template <class T>
const T* data_or_null(const Tensor& tensor) {
  return tensor.defined() ? data<T>(tensor) : nullptr;
}

template <class T>
const RowStatistics<Accumulate<T>>* rows_of(const Tensor& statistics) {
  return reinterpret_cast<const RowStatistics<Accumulate<T>>*>(data<Accumulate<T>>(statistics));
}

std::tuple<Tensor, Tensor> normalization(const Tensor& input, const Optional& weight, const Optional& bias,
                                         at::IntArrayRef shape, double eps, bool centered) {
  const Layout layout = layout_of(input, shape, centered);
  check_parameter(weight, "weight", input, layout);
  check_parameter(bias, "bias", input, layout);
  const c10::DeviceGuard guard(input.device());
  const Tensor x = input.contiguous(), w = contiguous(weight), b = contiguous(bias), y = empty_contiguous(x);
  const Tensor statistics = at::empty({layout.count, STATISTICS}, x.options().dtype(accumulate_type(x.scalar_type())));
  if (layout.count == 0) return {y, statistics};
  dispatch_dtype(x, [&](auto element) {
    using T = decltype(element);
    const T *in = data<T>(x), *of_weight = data_or_null<T>(w), *of_bias = data_or_null<T>(b);
    T* out = mutable_data<T>(y);
    auto* stats = const_cast<RowStatistics<Accumulate<T>>*>(rows_of<T>(statistics));
#ifdef WGAN_FAST_CUDA
    if (x.is_cuda()) {
      return normalization_cuda(in, of_weight, of_bias, out, stats, layout.rows, eps, layout.count, current_stream());
    }
#endif
    at::parallel_for(0, layout.count, layout.grain(), [&](int64_t begin, int64_t end) {
      normalization_cpu(in, of_weight, of_bias, out, stats, layout.rows, eps, begin, end);
    });
  });
  return {y, statistics};
}

// Calls run(rows from, to, number of the part) for all rows; where sums over rows are wanted, part by part.
template <class Run>
void for_parts(const Layout& layout, bool sums, Run&& run) {
  if (!sums) {
    at::parallel_for(0, layout.count, layout.grain(), [&](int64_t begin, int64_t end) { run(begin, end, 0); });
    return;
  }
  const int64_t per_part = layout.rows_per_part();
  at::parallel_for(0, layout.parts(), std::max<int64_t>(1, layout.grain() / per_part), [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      run(part * per_part, std::min((part + 1) * per_part, layout.count), part);
    }
  });
}

// [parts, parameters, elements of which each has a sum]; undefined where they are not wanted. The CPU kernels add to
// them, the CUDA kernels write them.
Tensor sums_of_parts(const Layout& layout, const Tensor& x, bool wanted) {
  if (!wanted) return Tensor();
  const auto options = x.options().dtype(accumulate_type(x.scalar_type()));
#ifdef WGAN_FAST_CUDA
  if (x.is_cuda()) {
    const int64_t parts = normalization_parts_cuda(layout.rows, layout.count);
    return at::empty({parts, layout.parameters(), layout.rows.inner}, options);
  }
#endif
  return at::zeros({layout.parts(), layout.parameters(), 1}, options);
}

template <class A>
A* sums_of_part(const Tensor& sums, int64_t part) {
  return sums.defined() ? mutable_data<A>(sums) + part * sums.size(1) : nullptr;
}

Tensor total(const Tensor& sums, const Tensor& x) {
  if (!sums.defined()) return at::empty({0}, x.options());
  const bool alone = sums.size(0) == 1 && sums.size(2) == 1;
  return (alone ? sums.view({-1}) : sums.sum(at::IntArrayRef{0, 2})).to(x.scalar_type());
}

// Results that `mask` does not ask for are empty.
Three normalization_backward(const Tensor& grad, const Tensor& input, const Tensor& statistics, const Optional& weight,
                             at::IntArrayRef shape, double, bool centered, Mask mask) {
  const Layout layout = layout_of(input, shape, centered);
  check_same(grad, "grad", input, "x");
  check_parameter(weight, "weight", input, layout);
  check_statistics(statistics, input, layout);
  const c10::DeviceGuard guard(input.device());
  const Tensor x = input.contiguous(), g = grad.contiguous(), w = contiguous(weight);
  const Tensor grad_x = mask[0] ? empty_contiguous(x) : at::empty({0}, x.options());
  const Tensor of_weight = sums_of_parts(layout, x, mask[1]), of_bias = sums_of_parts(layout, x, mask[2]);
  if (layout.count > 0) {
    dispatch_dtype(x, [&](auto element) {
      using T = decltype(element);
      const T *from = data<T>(g), *in = data<T>(x), *scale = data_or_null<T>(w);
      T* out = mask[0] ? mutable_data<T>(grad_x) : nullptr;
#ifdef WGAN_FAST_CUDA
      if (x.is_cuda()) {
        return normalization_backward_cuda(
            from, in, rows_of<T>(statistics), scale, out, sums_of_part<Accumulate<T>>(of_weight, 0),
            sums_of_part<Accumulate<T>>(of_bias, 0), layout.rows, layout.count, current_stream());
      }
#endif
      for_parts(layout, mask[1] || mask[2], [&](int64_t begin, int64_t end, int64_t part) {
        normalization_backward_cpu(from, in, rows_of<T>(statistics), scale, out,
                                   sums_of_part<Accumulate<T>>(of_weight, part),
                                   sums_of_part<Accumulate<T>>(of_bias, part), layout.rows, begin, end);
      });
    });
  }
  return {grad_x, total(of_weight, x), total(of_bias, x)};
}

Three normalization_double_backward(const Tensor& grad_grad, const Tensor& grad, const Tensor& input,
                                    const Tensor& statistics, const Optional& weight, at::IntArrayRef shape, double,
                                    bool centered, bool weight_wanted) {
  const Layout layout = layout_of(input, shape, centered);
  check_same(grad_grad, "grad_grad", input, "x");
  check_same(grad, "grad", input, "x");
  check_parameter(weight, "weight", input, layout);
  check_statistics(statistics, input, layout);
  const c10::DeviceGuard guard(input.device());
  const Tensor x = input.contiguous(), u = grad_grad.contiguous(), g = grad.contiguous(), w = contiguous(weight);
  const Tensor grad_out = empty_contiguous(x), grad_x = empty_contiguous(x);
  const Tensor of_weight = sums_of_parts(layout, x, weight_wanted);
  if (layout.count > 0) {
    dispatch_dtype(x, [&](auto element) {
      using T = decltype(element);
      const T *along = data<T>(u), *from = data<T>(g), *in = data<T>(x), *scale = data_or_null<T>(w);
      T *out = mutable_data<T>(grad_out), *out_x = mutable_data<T>(grad_x);
#ifdef WGAN_FAST_CUDA
      if (x.is_cuda()) {
        const Tensor means = weight_wanted ? at::empty({layout.count, 2}, statistics.options()) : Tensor();
        return normalization_double_backward_cuda(
            along, from, in, rows_of<T>(statistics), scale, out, out_x, sums_of_part<Accumulate<T>>(of_weight, 0),
            weight_wanted ? mutable_data<Accumulate<T>>(means) : nullptr, layout.rows, layout.count, current_stream());
      }
#endif
      for_parts(layout, weight_wanted, [&](int64_t begin, int64_t end, int64_t part) {
        normalization_double_backward_cpu(along, from, in, rows_of<T>(statistics), scale, out, out_x,
                                          sums_of_part<Accumulate<T>>(of_weight, part), layout.rows, begin, end);
      });
    });
  }
  return {grad_out, grad_x, total(of_weight, x)};
}

struct Formula {
  std::vector<int64_t> shape;
  double eps;
  bool centered;
};

// `tensors` with undefined ones for what is missing.
void save(AutogradContext* context, variable_list tensors, const Tensor& statistics, const Formula& f) {
  context->set_materialize_grads(false);
  context->save_for_backward(std::move(tensors));
  context->saved_data["statistics"] = statistics;
  context->saved_data["shape"] = f.shape;
  context->saved_data["eps"] = f.eps;
  context->saved_data["centered"] = f.centered;
}

struct Saved {
  explicit Saved(AutogradContext* context)
      : tensors(context->get_saved_variables()),
        statistics(context->saved_data["statistics"].toTensor()),
        f{context->saved_data["shape"].toIntVector(), context->saved_data["eps"].toDouble(),
          context->saved_data["centered"].toBool()} {}

  variable_list tensors;
  Tensor statistics;
  Formula f;
};

Optional optional(const Tensor& tensor) { return tensor.defined() ? Optional(tensor) : std::nullopt; }
Tensor defined_or_not(const Optional& tensor) { return tensor ? *tensor : Tensor(); }
Tensor sum(const Tensor& a, const Tensor& b) { return !a.defined() ? b : !b.defined() ? a : a + b; }

// The second derivative, composed of PyTorch's operators and so differentiable any number of times.
variable_list composed_double_backward(const Tensor& grad_grad, const Tensor& grad, const Tensor& input,
                                       const Tensor& weight, const Formula& f) {
  const int64_t groups = f.shape[0], channels = f.shape[1], inner = f.shape[2];
  const std::vector<int64_t> runs{-1, groups, channels, inner};
  const auto mean = [](const Tensor& t) { return t.mean(at::IntArrayRef{2, 3}, /*keepdim=*/true); };
  const Tensor u = grad_grad.reshape(runs), g = grad.reshape(runs), x = input.reshape(runs);
  const Tensor w = weight.defined() ? weight.view({1, groups, channels, 1}) : at::ones({1}, x.options());
  const auto deviation = [&](const Tensor& t) { return f.centered ? t - mean(t) : t; };
  const Tensor d = deviation(x), r = (mean(d * d) + f.eps).rsqrt(), z = d * r, h = g * w;
  const Tensor du = deviation(u), dh = deviation(h), p = mean(u * z), c = mean(h * z);
  const Tensor q = r * (du - z * p);
  const Tensor of_x = -r * r * (c * du + p * dh + z * (mean(du * dh) - 3 * p * c));
  variable_list results{(q * w).view(input.sizes()), of_x.view(input.sizes())};
  if (weight.defined()) results.push_back((q * g).sum(at::IntArrayRef{0, 3}).view({-1}));
  return results;
}

class DoubleBackward : public torch::autograd::Function<DoubleBackward> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& grad_grad, const Tensor& grad, const Tensor& x,
                               const Tensor& statistics, const Optional& weight, const Formula& f, bool weight_wanted) {
    const at::AutoDispatchBelowADInplaceOrView below;
    save(context, {grad_grad, grad, x, defined_or_not(weight)}, statistics, f);
    const auto [of_grad, of_x, of_weight] =
        dispatch_double_backward(grad_grad, grad, x, statistics, weight, f.shape, f.eps, f.centered, weight_wanted);
    if (!weight_wanted) context->mark_non_differentiable({of_weight});
    return {of_grad, of_x, of_weight};
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(7);
    const Saved s(context);
    const bool create_graph = at::GradMode::is_enabled();
    const at::AutoGradMode enabled(true);
    // Views of what was saved, so that gradients with respect to them do not flow on into one another's history.
    variable_list inputs;
    for (const Tensor& tensor : s.tensors) {
      if (!tensor.defined()) continue;
      const bool with_history = create_graph && tensor.requires_grad();
      inputs.push_back(with_history ? tensor.view_as(tensor) : tensor.detach().requires_grad_());
    }
    const Tensor weight = inputs.size() > 3 ? inputs[3] : Tensor();
    const variable_list all = composed_double_backward(inputs[0], inputs[1], inputs[2], weight, s.f);
    variable_list outputs, used;
    for (size_t i = 0; i < all.size(); ++i) {
      if (!grads[i].defined()) continue;
      outputs.push_back(all[i]);
      used.push_back(grads[i]);
    }
    if (outputs.empty()) return result;
    const variable_list found =
        torch::autograd::grad(outputs, inputs, used, std::nullopt, create_graph, /*allow_unused=*/true);
    for (size_t i = 0; i < 3; ++i) result[i] = found[i];
    if (found.size() > 3) result[4] = found[3];
    return result;
  }
};

Three double_backward_autograd(const Tensor& grad_grad, const Tensor& grad, const Tensor& x, const Tensor& statistics,
                               const Optional& weight, at::IntArrayRef shape, double eps, bool centered,
                               bool weight_wanted) {
  const Formula f{shape.vec(), eps, centered};
  const variable_list results = DoubleBackward::apply(grad_grad, grad, x, statistics, weight, f, weight_wanted);
  return {results[0], results[1], results[2]};
}

class Backward : public torch::autograd::Function<Backward> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& grad, const Tensor& x, const Tensor& statistics,
                               const Optional& weight, const Formula& f, Mask mask) {
    const at::AutoDispatchBelowADInplaceOrView below;
    save(context, {grad, x, defined_or_not(weight)}, statistics, f);
    const auto [of_x, of_weight, of_bias] =
        dispatch_backward(grad, x, statistics, weight, f.shape, f.eps, f.centered, mask);
    const variable_list results{of_x, of_weight, of_bias};
    variable_list constant;
    for (size_t i = 0; i < mask.size(); ++i) {
      if (!mask[i]) constant.push_back(results[i]);
    }
    context->mark_non_differentiable(constant);
    return results;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(6);
    const Saved s(context);
    const Tensor &g = s.tensors[0], &x = s.tensors[1], &weight = s.tensors[2];
    const Formula& f = s.f;
    if (grads[0].defined()) {
      const bool weight_wanted = weight.defined() && context->needs_input_grad(3);
      Tensor of_weight;
      std::tie(result[0], result[1], of_weight) = dispatch_double_backward(
          grads[0], g, x, s.statistics, optional(weight), f.shape, f.eps, f.centered, weight_wanted);
      if (weight_wanted) result[3] = of_weight;
    }
    if (grads[1].defined()) {  // of <grads[1], sum of g x^>
      result[0] = sum(result[0],
                      std::get<0>(dispatch_normalization(x, grads[1], optional(grads[2]), f.shape, f.eps, f.centered)));
      result[1] = sum(result[1], std::get<0>(dispatch_backward(g, x, s.statistics, grads[1], f.shape, f.eps, f.centered,
                                                               {true, false, false})));
    } else if (grads[2].defined()) {
      const Tensor runs = grads[2].view({1, -1, 1});
      result[0] =
          sum(result[0], runs.expand({x.numel() / (runs.numel() * f.shape[2]), -1, f.shape[2]}).reshape(x.sizes()));
    }
    return result;
  }
};

Three backward_autograd(const Tensor& grad, const Tensor& x, const Tensor& statistics, const Optional& weight,
                        at::IntArrayRef shape, double eps, bool centered, Mask mask) {
  const variable_list results = Backward::apply(grad, x, statistics, weight, Formula{shape.vec(), eps, centered}, mask);
  return {results[0], results[1], results[2]};
}

class Normalization : public torch::autograd::Function<Normalization> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Optional& weight, const Optional& bias,
                        const Formula& f, Tensor* statistics) {
    const at::AutoDispatchBelowADInplaceOrView below;
    Tensor y;
    std::tie(y, *statistics) = dispatch_normalization(x, weight, bias, f.shape, f.eps, f.centered);
    save(context, {x, defined_or_not(weight)}, *statistics, f);
    context->saved_data["has_bias"] = bias.has_value();
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(5);
    if (!grads[0].defined()) return result;
    const Saved s(context);
    // Numbers count tensors alone: a parameter that is missing has none.
    const bool has_weight = s.tensors[1].defined(), has_bias = context->saved_data["has_bias"].toBool();
    const Mask mask{context->needs_input_grad(0), has_weight && context->needs_input_grad(1),
                    has_bias && context->needs_input_grad(has_weight ? 2 : 1)};
    const auto [of_x, of_weight, of_bias] = dispatch_backward(
        grads[0], s.tensors[0], s.statistics, optional(s.tensors[1]), s.f.shape, s.f.eps, s.f.centered, mask);
    if (mask[0]) result[0] = of_x;
    if (mask[1]) result[1] = of_weight;
    if (mask[2]) result[2] = of_bias;
    return result;
  }
};

std::tuple<Tensor, Tensor> normalization_autograd(const Tensor& x, const Optional& weight, const Optional& bias,
                                                  at::IntArrayRef shape, double eps, bool centered) {
  Tensor statistics;
  const Tensor y = Normalization::apply(x, weight, bias, Formula{shape.vec(), eps, centered}, &statistics);
  return {y, statistics};
}

void implement(torch::Library& library) {
  library.impl("normalization", normalization);
  library.impl("normalization_backward", normalization_backward);
  library.impl("normalization_double_backward", normalization_double_backward);
}

}  // namespace

bool is_normalization(const torch::autograd::Node& node) {
  return typeid(node) == typeid(torch::autograd::CppNode<Normalization>) ||
         typeid(node) == typeid(torch::autograd::CppNode<Backward>) ||
         typeid(node) == typeid(torch::autograd::CppNode<DoubleBackward>);
}

TORCH_LIBRARY_IMPL(wgan_fast, CPU, library) { implement(library); }
#ifdef WGAN_FAST_CUDA
TORCH_LIBRARY_IMPL(wgan_fast, CUDA, library) { implement(library); }
#endif
TORCH_LIBRARY_IMPL(wgan_fast, Autograd, library) {
  library.impl("normalization", normalization_autograd);
  library.impl("normalization_backward", backward_autograd);
  library.impl("normalization_double_backward", double_backward_autograd);
}

}  // namespace wgan_fast
