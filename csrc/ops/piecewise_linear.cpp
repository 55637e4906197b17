#include "kernels/piecewise_linear.h"

#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "critic/graph.h"
#include "ops/tensors.h"

namespace wgan_fast {

std::tuple<Tensor, Tensor> dispatch_piecewise_linear(const Tensor& x, double closed_slope, double lower, double upper) {
  static const auto op =
      find_operator<std::tuple<Tensor, Tensor>(const Tensor&, double, double, double)>("wgan_fast::piecewise_linear");
  return op.call(x, closed_slope, lower, upper);
}

static Tensor dispatch_piecewise_linear_(const Tensor& x, double closed_slope, double lower, double upper) {
  static const auto op = find_operator<Tensor(const Tensor&, double, double, double)>("wgan_fast::piecewise_linear_");
  return op.call(x, closed_slope, lower, upper);
}

Tensor dispatch_gate(const Tensor& x, const Tensor& gates, double closed_slope, at::IntArrayRef stride) {
  static const auto op =
      find_operator<Tensor(const Tensor&, const Tensor&, double, at::IntArrayRef)>("wgan_fast::gate");
  return op.call(x, gates, closed_slope, stride);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Elements and gates lie in the order of memory, so a tensor must fill its memory, in whatever order of dimensions.
void check_dense(const Tensor& x) {
  TORCH_CHECK_TYPE(is_supported(x.scalar_type()), "x: expected float16, bfloat16, float32 or float64, got ",
                   x.scalar_type());
  TORCH_CHECK_TYPE(x.layout() == at::kStrided, "x: expected a dense tensor, got layout ", x.layout());
  TORCH_CHECK_VALUE(x.is_non_overlapping_and_dense(), "x: expected a tensor without gaps in memory");
}

Tensor piecewise_linear_into(const Tensor& y, const Tensor& x, double closed_slope, double lower, double upper) {
  TORCH_CHECK_VALUE(!(lower > upper), "lower: expected at most upper = ", upper, ", got ", lower);
  const int64_t count = x.numel();
  const Tensor gates = at::empty({gate_bytes(count)}, x.options().dtype(at::kByte));
  if (count == 0) return gates;
  dispatch(x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    const auto bound = [](double value) { return static_cast<Accumulate<T>>(std::isinf(value) ? NAN : value); };
    const PiecewiseLinear<Accumulate<T>> f{static_cast<Accumulate<T>>(closed_slope), bound(lower), bound(upper)};
    const T* in = data<T>(x);
    T* out = mutable_data<T>(y);
    uint8_t* bits = mutable_data<uint8_t>(gates);
#ifdef WGAN_FAST_CUDA
    if (x.is_cuda()) {
      return piecewise_linear_cuda(in, out, bits, f, count, c10::cuda::getCurrentCUDAStream().stream());
    }
#endif
    at::parallel_for(0, (count + GATES - 1) / GATES, GRAIN / GATES, [&](int64_t begin, int64_t end) {
      piecewise_linear_cpu(in, out, bits, f, begin * GATES, std::min(end * GATES, count));
    });
  });
  return gates;
}

std::tuple<Tensor, Tensor> piecewise_linear(const Tensor& x, double closed_slope, double lower, double upper) {
  check_dense(x);
  const c10::DeviceGuard guard(x.device());
  const Tensor y = at::empty_like(x);
  return {y, piecewise_linear_into(y, x, closed_slope, lower, upper)};
}

Tensor piecewise_linear_(const Tensor& x, double closed_slope, double lower, double upper) {
  check_dense(x);
  const c10::DeviceGuard guard(x.device());
  return piecewise_linear_into(x, x, closed_slope, lower, upper);
}

// Strides of a tensor that fills its memory, in whatever order of dimensions.
bool fill_memory(at::IntArrayRef sizes, at::IntArrayRef stride) {
  std::vector<size_t> dims;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] != 1) dims.push_back(d);
  }
  std::sort(dims.begin(), dims.end(), [&](size_t a, size_t b) { return stride[a] < stride[b]; });
  int64_t expected = 1;
  for (const size_t d : dims) {
    if (stride[d] != expected) return false;
    expected *= sizes[d];
  }
  return true;
}

// `stride` is that of the activation's input, whose order of memory the gates have.
Tensor gate_forward(const Tensor& x, const Tensor& gates, double closed_slope, at::IntArrayRef stride) {
  TORCH_CHECK_TYPE(is_supported(x.scalar_type()), "x: expected float16, bfloat16, float32 or float64, got ",
                   x.scalar_type());
  TORCH_CHECK_TYPE(gates.scalar_type() == at::kByte, "gates: expected uint8, got ", gates.scalar_type());
  TORCH_CHECK_VALUE(gates.device() == x.device(), "gates is on ", gates.device(), " and x on ", x.device());
  TORCH_CHECK_VALUE(gates.dim() == 1 && gates.is_contiguous() && gates.numel() == gate_bytes(x.numel()),
                    "gates: expected ", gate_bytes(x.numel()), " bytes, got shape ", gates.sizes());
  TORCH_CHECK_VALUE(stride.size() == x.sizes().size(), "stride: expected ", x.dim(), " numbers, got ", stride);
  TORCH_CHECK_VALUE(x.numel() == 0 || fill_memory(x.sizes(), stride), "stride: ", stride,
                    " does not fill the memory of ", x.sizes(), " without gaps");
  const c10::DeviceGuard guard(x.device());
  const Tensor y = at::empty_strided(x.sizes(), stride, x.options());
  if (y.numel() == 0) return y;
  const Tensor dense = x.strides() == stride ? x : at::empty_like(y).copy_(x);
  dispatch(x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    const T* in = data<T>(dense);
    const uint8_t* bits = data<uint8_t>(gates);
    T* out = mutable_data<T>(y);
    const auto slope = static_cast<Accumulate<T>>(closed_slope);
    const int64_t count = y.numel();
#ifdef WGAN_FAST_CUDA
    if (x.is_cuda()) {
      return gate_cuda(in, bits, out, slope, count, c10::cuda::getCurrentCUDAStream().stream());
    }
#endif
    at::parallel_for(0, (count + GATES - 1) / GATES, GRAIN / GATES, [&](int64_t begin, int64_t end) {
      gate_cpu(in, bits, out, slope, begin * GATES, std::min(end * GATES, count));
    });
  });
  return y;
}

// The gates decide the derivative and do not move with the input: the second derivative has nothing to tell it.
void save(AutogradContext* context, const Tensor& gates, double closed_slope, at::IntArrayRef stride) {
  context->set_materialize_grads(false);
  context->save_for_backward({gates});
  context->saved_data["closed_slope"] = closed_slope;
  context->saved_data["stride"] = stride.vec();
}

Tensor backward_of_gate(AutogradContext* context, const Tensor& grad) {
  if (!grad.defined()) return Tensor();
  auto& saved = context->saved_data;
  return dispatch_gate(grad, context->get_saved_variables()[0], saved["closed_slope"].toDouble(),
                       saved["stride"].toIntVector());
}

class Gate : public torch::autograd::Function<Gate> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& gates, double closed_slope,
                        at::IntArrayRef stride) {
    const at::AutoDispatchBelowADInplaceOrView below;
    save(context, gates, closed_slope, stride);
    return dispatch_gate(x, gates, closed_slope, stride);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    return {backward_of_gate(context, grads[0]), Tensor(), Tensor(), Tensor()};
  }
};

Tensor gate_autograd(const Tensor& x, const Tensor& gates, double closed_slope, at::IntArrayRef stride) {
  return Gate::apply(x, gates, closed_slope, stride);
}

// Returns the y alone, because autograd lets a function that works in place on a view return nothing else.
class Activation : public torch::autograd::Function<Activation> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, double closed_slope, double lower, double upper,
                        bool inplace, Tensor* gates) {
    const at::AutoDispatchBelowADInplaceOrView below;
    Tensor y = x;
    if (inplace) {
      *gates = dispatch_piecewise_linear_(x, closed_slope, lower, upper);
      context->mark_dirty({x});
    } else {
      std::tie(y, *gates) = dispatch_piecewise_linear(x, closed_slope, lower, upper);
    }
    save(context, *gates, closed_slope, x.strides());
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(6);
    result[0] = backward_of_gate(context, grads[0]);
    return result;
  }
};

std::tuple<Tensor, Tensor> piecewise_linear_autograd(const Tensor& x, double closed_slope, double lower, double upper) {
  Tensor gates;
  const Tensor y = Activation::apply(x, closed_slope, lower, upper, /*inplace=*/false, &gates);
  return {y, gates};
}

Tensor piecewise_linear_autograd_(const Tensor& x, double closed_slope, double lower, double upper) {
  torch::autograd::check_inplace(x, x.requires_grad());  // before anything is written
  Tensor gates;
  Activation::apply(x, closed_slope, lower, upper, /*inplace=*/true, &gates);
  return gates;
}

// Where autograd is out of the way, in inference mode, this still counts the change.
Tensor piecewise_linear_counted_(const Tensor& x, double closed_slope, double lower, double upper) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const Tensor gates = dispatch_piecewise_linear_(x, closed_slope, lower, upper);
  torch::autograd::increment_version(x);
  return gates;
}

void implement(torch::Library& library) {
  library.impl("piecewise_linear", piecewise_linear);
  library.impl("piecewise_linear_", piecewise_linear_);
  library.impl("gate", gate_forward);
}

}  // namespace

std::optional<Tensor> activation(const Tensor& x, double closed_slope, double lower, double upper, bool inplace) {
  if (!is_plain(x) || !x.is_non_overlapping_and_dense() || lower > upper) return std::nullopt;
  if (!inplace) return std::get<0>(dispatch_piecewise_linear(x, closed_slope, lower, upper));
  dispatch_piecewise_linear_(x, closed_slope, lower, upper);
  return x;
}

bool is_piecewise_linear(const torch::autograd::Node& node) {
  return typeid(node) == typeid(torch::autograd::CppNode<Activation>) ||
         typeid(node) == typeid(torch::autograd::CppNode<Gate>);
}

TORCH_LIBRARY_IMPL(wgan_fast, CPU, library) { implement(library); }
#ifdef WGAN_FAST_CUDA
TORCH_LIBRARY_IMPL(wgan_fast, CUDA, library) { implement(library); }
#endif
TORCH_LIBRARY_IMPL(wgan_fast, ADInplaceOrView, library) {
  library.impl("piecewise_linear_", piecewise_linear_counted_);
}
TORCH_LIBRARY_IMPL(wgan_fast, Autograd, library) {
  library.impl("piecewise_linear", piecewise_linear_autograd);
  library.impl("piecewise_linear_", piecewise_linear_autograd_);
  library.impl("gate", gate_autograd);
}

}  // namespace wgan_fast
