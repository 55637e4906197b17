#include "ops/smooth_activation.h"

#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <tuple>

#include "kernels/smooth_activation.h"
#include "ops/tensors.h"

namespace wgan_fast {

using Parameters = at::ArrayRef<double>;

Tensor dispatch_smooth_activation(const Tensor& x, c10::string_view kind, Parameters parameters) {
  static const auto op =
      find_operator<Tensor(const Tensor&, c10::string_view, Parameters)>("wgan_fast::smooth_activation");
  return op.call(x, kind, parameters);
}

void dispatch_smooth_activation_(const Tensor& x, c10::string_view kind, Parameters parameters) {
  static const auto op =
      find_operator<void(const Tensor&, c10::string_view, Parameters)>("wgan_fast::smooth_activation_");
  op.call(x, kind, parameters);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor dispatch_backward(const Tensor& grad, const Tensor& saved, c10::string_view kind, Parameters parameters,
                         int64_t order) {
  static const auto op = find_operator<Tensor(const Tensor&, const Tensor&, c10::string_view, Parameters, int64_t)>(
      "wgan_fast::smooth_activation_backward");
  return op.call(grad, saved, kind, parameters, order);
}

std::tuple<Tensor, Tensor> dispatch_double_backward(const Tensor& grad_grad, const Tensor& grad, const Tensor& saved,
                                                    c10::string_view kind, Parameters parameters) {
  static const auto op =
      find_operator<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, c10::string_view,
                                               Parameters)>("wgan_fast::smooth_activation_double_backward");
  return op.call(grad_grad, grad, saved, kind, parameters);
}

struct Named {
  const char* name;
  SmoothKind kind;
  size_t parameters;
};
constexpr Named KINDS[] = {
    {"silu", SmoothKind::silu, 0},
    {"gelu", SmoothKind::gelu, 0},
    {"gelu_tanh", SmoothKind::gelu_tanh, 0},
    {"tanh", SmoothKind::tanh, 0},
    {"sigmoid", SmoothKind::sigmoid, 0},
    {"softplus", SmoothKind::softplus, 2},
    {"elu", SmoothKind::elu, 3},
    {"mish", SmoothKind::mish, 0},
    {"logsigmoid", SmoothKind::logsigmoid, 0},
    {"softsign", SmoothKind::softsign, 0},
};

SmoothActivation activation(c10::string_view kind, Parameters parameters) {
  for (const Named& known : KINDS) {
    if (kind != known.name) continue;
    TORCH_CHECK_VALUE(parameters.size() == known.parameters, "parameters: ", kind, " has ", known.parameters, ", got ",
                      parameters.size());
    const auto at = [&](size_t i) { return i < parameters.size() ? parameters[i] : 0.0; };
    // Only then is the derivative a function of the output.
    TORCH_CHECK_VALUE(known.kind != SmoothKind::elu || at(0) * at(1) >= 0,
                      "parameters: expected alpha and scale of one sign, got ", parameters);
    const double first = known.kind == SmoothKind::elu ? at(0) * at(1) : at(0);
    return {known.kind, first, at(1), at(2)};
  }
  TORCH_CHECK_VALUE(false, "kind: no smooth activation has the name ", kind);
}

void check_type(const Tensor& tensor, const char* name) {
  TORCH_CHECK_TYPE(is_supported(tensor.scalar_type()), name, ": expected float16, bfloat16, float32 or float64, got ",
                   tensor.scalar_type());
  TORCH_CHECK_TYPE(tensor.layout() == at::kStrided, name, ": expected a dense tensor, got layout ", tensor.layout());
}

// Elements are numbered in the order of memory, whatever the order of dimensions.
void check_dense(const Tensor& tensor, const char* name) {
  check_type(tensor, name);
  TORCH_CHECK_VALUE(tensor.is_non_overlapping_and_dense(), name, ": expected a tensor without gaps in memory");
}

void activate_into(const Tensor& y, const Tensor& x, c10::string_view kind, Parameters parameters) {
  const SmoothActivation f = activation(kind, parameters);
  const int64_t count = x.numel();
  if (count == 0) return;
  dispatch_dtype(x, [&](auto element) {
    using T = decltype(element);
    const T* in = data<T>(x);
    T* out = mutable_data<T>(y);
#ifdef WGAN_FAST_CUDA
    if (x.is_cuda()) return smooth_activation_cuda(in, out, f, count, current_stream());
#endif
    at::parallel_for(0, count, GRAIN,
                     [&](int64_t begin, int64_t end) { smooth_activation_cpu(in, out, f, begin, end); });
  });
}

Tensor smooth_activation(const Tensor& x, c10::string_view kind, Parameters parameters) {
  check_dense(x, "x");
  const c10::DeviceGuard guard(x.device());
  const Tensor y = at::empty_like(x);
  activate_into(y, x, kind, parameters);
  return y;
}

void smooth_activation_(const Tensor& x, c10::string_view kind, Parameters parameters) {
  check_dense(x, "x");
  const c10::DeviceGuard guard(x.device());
  activate_into(x, x, kind, parameters);
}

// With the strides of `saved`.
Tensor in_order_of(const Tensor& saved, const Tensor& grad) {
  return grad.strides() == saved.strides() ? grad : at::empty_like(saved).copy_(grad);
}

Tensor smooth_activation_backward(const Tensor& grad, const Tensor& saved, c10::string_view kind, Parameters parameters,
                                  int64_t order) {
  check_dense(saved, "saved");
  check_type(grad, "grad");
  check_same(grad, "grad", saved, "saved");
  TORCH_CHECK_VALUE(order >= 0 && order < SMOOTH_ORDERS, "order: expected 0, 1 or 2, got ", order);
  const SmoothActivation f = activation(kind, parameters);
  const c10::DeviceGuard guard(saved.device());
  const Tensor result = at::empty_like(saved);
  const int64_t count = saved.numel();
  if (count == 0) return result;
  const Tensor dense = in_order_of(saved, grad);
  dispatch_dtype(saved, [&](auto element) {
    using T = decltype(element);
    const T *g = data<T>(dense), *z = data<T>(saved);
    T* out = mutable_data<T>(result);
#ifdef WGAN_FAST_CUDA
    if (saved.is_cuda()) {
      return smooth_activation_backward_cuda(g, z, out, f, static_cast<int>(order), count, current_stream());
    }
#endif
    at::parallel_for(0, count, GRAIN, [&](int64_t begin, int64_t end) {
      smooth_activation_backward_cpu(g, z, out, f, static_cast<int>(order), begin, end);
    });
  });
  return result;
}

std::tuple<Tensor, Tensor> smooth_activation_double_backward(const Tensor& grad_grad, const Tensor& grad,
                                                             const Tensor& saved, c10::string_view kind,
                                                             Parameters parameters) {
  check_dense(saved, "saved");
  check_type(grad_grad, "grad_grad");
  check_type(grad, "grad");
  check_same(grad_grad, "grad_grad", saved, "saved");
  check_same(grad, "grad", saved, "saved");
  const SmoothActivation f = activation(kind, parameters);
  const c10::DeviceGuard guard(saved.device());
  const Tensor grad_out = at::empty_like(saved), saved_out = at::empty_like(saved);
  const int64_t count = saved.numel();
  if (count == 0) return {grad_out, saved_out};
  const Tensor dense_grad_grad = in_order_of(saved, grad_grad), dense_grad = in_order_of(saved, grad);
  dispatch_dtype(saved, [&](auto element) {
    using T = decltype(element);
    const T *u = data<T>(dense_grad_grad), *g = data<T>(dense_grad), *z = data<T>(saved);
    T *out = mutable_data<T>(grad_out), *z_out = mutable_data<T>(saved_out);
#ifdef WGAN_FAST_CUDA
    if (saved.is_cuda()) {
      return smooth_activation_double_backward_cuda(u, g, z, out, z_out, f, count, current_stream());
    }
#endif
    at::parallel_for(0, count, GRAIN, [&](int64_t begin, int64_t end) {
      smooth_activation_double_backward_cpu(u, g, z, out, z_out, f, begin, end);
    });
  });
  return {grad_out, saved_out};
}

void save(AutogradContext* context, variable_list tensors, c10::string_view kind, Parameters parameters,
          int64_t order = 0) {
  context->set_materialize_grads(false);
  context->save_for_backward(std::move(tensors));
  context->saved_data["kind"] = std::string(kind);
  context->saved_data["parameters"] = parameters.vec();
  context->saved_data["order"] = order;
}

struct Saved {
  explicit Saved(AutogradContext* context)
      : tensors(context->get_saved_variables()),
        kind(context->saved_data["kind"].toStringRef()),
        parameters(context->saved_data["parameters"].toDoubleVector()),
        order(context->saved_data["order"].toInt()) {}

  variable_list tensors;
  const std::string& kind;
  std::vector<double> parameters;
  int64_t order;

  // g times the slope's derivative of this order, where both are defined
  Tensor times_slope(const Tensor& g, const Tensor& saved, int64_t order) const {
    return g.defined() ? dispatch_backward(g, saved, kind, parameters, order) : g;
  }
};

Tensor sum(const Tensor& a, const Tensor& b) { return !a.defined() ? b : !b.defined() ? a : a + b; }
Tensor product(const Tensor& a, const Tensor& b) { return !a.defined() || !b.defined() ? Tensor() : a * b; }

Tensor by_pytorch(const Tensor& x, SmoothKind kind, const std::vector<double>& parameters) {
  switch (kind) {
    case SmoothKind::silu:
      return at::silu(x);
    case SmoothKind::gelu:
      return at::gelu(x);
    case SmoothKind::gelu_tanh:
      return at::gelu(x, "tanh");
    case SmoothKind::softplus:
      return at::softplus(x, parameters[0], parameters[1]);
    case SmoothKind::mish:
      return at::mish(x);
    case SmoothKind::logsigmoid:
      return at::log_sigmoid(x);
    case SmoothKind::softsign:
      return x / (x.abs() + 1);
    default:
      TORCH_INTERNAL_ASSERT(false);
  }
}

// g times the third derivative of the slope, composed of PyTorch's operators and so differentiable any number of times.
Tensor times_third_slope(const Tensor& g, const Tensor& saved, const std::string& name,
                         const std::vector<double>& parameters) {
  const SmoothKind kind = activation(name, parameters).kind;
  if (saves_output(kind)) return Tensor();  // there the slope is a polynomial of degree 2
  const bool create_graph = at::GradMode::is_enabled();
  const at::AutoGradMode enabled(true);
  const Tensor x = create_graph ? saved.view_as(saved) : saved.detach().requires_grad_();
  Tensor derivative = by_pytorch(x, kind, parameters);
  for (int order = 0; order < 4; ++order) {
    derivative = torch::autograd::grad({derivative}, {x}, {at::ones_like(derivative)}, /*retain_graph=*/true,
                                       /*create_graph=*/true)[0];
  }
  return g * (create_graph ? derivative : derivative.detach());
}

// grad_grad slope<0>(z) and grad_grad grad slope<1>(z)
class DoubleBackward : public torch::autograd::Function<DoubleBackward> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& grad_grad, const Tensor& grad,
                               const Tensor& saved, c10::string_view kind, Parameters parameters) {
    const at::AutoDispatchBelowADInplaceOrView below;
    save(context, {grad_grad, grad, saved}, kind, parameters);
    const auto [grad_out, saved_out] = dispatch_double_backward(grad_grad, grad, saved, kind, parameters);
    return {grad_out, saved_out};
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(5);
    if (!grads[0].defined() && !grads[1].defined()) return result;
    const Saved s(context);
    const Tensor &u = s.tensors[0], &g = s.tensors[1], &z = s.tensors[2];
    if (context->needs_input_grad(0)) {
      result[0] = sum(s.times_slope(grads[0], z, 0), s.times_slope(product(grads[1], g), z, 1));
    }
    const Tensor along = product(grads[1], u);
    if (context->needs_input_grad(1)) result[1] = s.times_slope(along, z, 1);
    if (context->needs_input_grad(2)) {
      result[2] = sum(s.times_slope(product(grads[0], u), z, 1), s.times_slope(product(along, g), z, 2));
    }
    return result;
  }
};

std::tuple<Tensor, Tensor> double_backward_autograd(const Tensor& grad_grad, const Tensor& grad, const Tensor& saved,
                                                    c10::string_view kind, Parameters parameters) {
  const variable_list results = DoubleBackward::apply(grad_grad, grad, saved, kind, parameters);
  return {results[0], results[1]};
}

// grad slope<order>(z)
class Backward : public torch::autograd::Function<Backward> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& grad, const Tensor& saved, c10::string_view kind,
                        Parameters parameters, int64_t order) {
    const at::AutoDispatchBelowADInplaceOrView below;
    save(context, {grad, saved}, kind, parameters, order);
    return dispatch_backward(grad, saved, kind, parameters, order);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(5);
    const Tensor u = grads[0];
    if (!u.defined()) return result;
    const Saved s(context);
    const Tensor &g = s.tensors[0], &z = s.tensors[1];
    const bool needs_grad = context->needs_input_grad(0), needs_saved = context->needs_input_grad(1);
    if (s.order == 0 && needs_grad && needs_saved) {
      std::tie(result[0], result[1]) = dispatch_double_backward(u, g, z, s.kind, s.parameters);
      return result;
    }
    if (needs_grad) result[0] = s.times_slope(u, z, s.order);
    if (needs_saved) {
      result[1] = s.order + 1 < SMOOTH_ORDERS ? s.times_slope(u * g, z, s.order + 1)
                                              : times_third_slope(u * g, z, s.kind, s.parameters);
    }
    return result;
  }
};

Tensor backward_autograd(const Tensor& grad, const Tensor& saved, c10::string_view kind, Parameters parameters,
                         int64_t order) {
  return Backward::apply(grad, saved, kind, parameters, order);
}

// `original`: what to save instead of the input of a function that works in place.
class Activation : public torch::autograd::Function<Activation> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, c10::string_view kind, Parameters parameters,
                        bool inplace, const Tensor* original) {
    const at::AutoDispatchBelowADInplaceOrView below;
    Tensor y = x;
    if (inplace) {
      dispatch_smooth_activation_(x, kind, parameters);
      context->mark_dirty({x});
    } else {
      y = dispatch_smooth_activation(x, kind, parameters);
    }
    save(context, {original ? *original : y}, kind, parameters);
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(5);
    if (!grads[0].defined()) return result;
    const Saved s(context);
    result[0] = s.times_slope(grads[0], s.tensors[0], 0);
    return result;
  }
};

Tensor smooth_activation_autograd(const Tensor& x, c10::string_view kind, Parameters parameters) {
  const bool output = saves_output(activation(kind, parameters).kind);
  return Activation::apply(x, kind, parameters, /*inplace=*/false, output ? nullptr : &x);
}

void smooth_activation_autograd_(const Tensor& x, c10::string_view kind, Parameters parameters) {
  const bool recorded = at::GradMode::is_enabled() && x.requires_grad();
  torch::autograd::check_inplace(x, x.requires_grad());  // before anything is written
  const bool output = saves_output(activation(kind, parameters).kind);
  const Tensor original = output || !recorded ? Tensor() : x.clone();  // with x's history
  Activation::apply(x, kind, parameters, /*inplace=*/true, original.defined() ? &original : nullptr);
}

// Increments the version even where autograd is not dispatched, as in inference mode.
void smooth_activation_increment_version_(const Tensor& x, c10::string_view kind, Parameters parameters) {
  const at::AutoDispatchBelowADInplaceOrView below;
  dispatch_smooth_activation_(x, kind, parameters);
  torch::autograd::increment_version(x);
}

void implement(torch::Library& library) {
  library.impl("smooth_activation", smooth_activation);
  library.impl("smooth_activation_", smooth_activation_);
  library.impl("smooth_activation_backward", smooth_activation_backward);
  library.impl("smooth_activation_double_backward", smooth_activation_double_backward);
}

}  // namespace

bool is_smooth_activation(const torch::autograd::Node& node) {
  return typeid(node) == typeid(torch::autograd::CppNode<Activation>) ||
         typeid(node) == typeid(torch::autograd::CppNode<Backward>) ||
         typeid(node) == typeid(torch::autograd::CppNode<DoubleBackward>);
}

TORCH_LIBRARY_IMPL(wgan_fast, CPU, library) { implement(library); }
#ifdef WGAN_FAST_CUDA
TORCH_LIBRARY_IMPL(wgan_fast, CUDA, library) { implement(library); }
#endif
TORCH_LIBRARY_IMPL(wgan_fast, ADInplaceOrView, library) {
  library.impl("smooth_activation_", smooth_activation_increment_version_);
}
TORCH_LIBRARY_IMPL(wgan_fast, Autograd, library) {
  library.impl("smooth_activation", smooth_activation_autograd);
  library.impl("smooth_activation_", smooth_activation_autograd_);
  library.impl("smooth_activation_backward", backward_autograd);
  library.impl("smooth_activation_double_backward", double_backward_autograd);
}

}  // namespace wgan_fast
