#include "ops/piecewise_linear.h"

#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "kernels/piecewise_linear.h"
#include "ops/tensors.h"

namespace wgan_fast {

std::tuple<Tensor, Tensor> dispatch_piecewise_linear(const Tensor& x, double negative_slope, double lower,
                                                     double upper) {
  static const auto op =
      find_operator<std::tuple<Tensor, Tensor>(const Tensor&, double, double, double)>("wgan_fast::piecewise_linear");
  return op.call(x, negative_slope, lower, upper);
}

Tensor dispatch_piecewise_linear_(const Tensor& x, double negative_slope, double lower, double upper) {
  static const auto op = find_operator<Tensor(const Tensor&, double, double, double)>("wgan_fast::piecewise_linear_");
  return op.call(x, negative_slope, lower, upper);
}

Tensor dispatch_apply_mask(const Tensor& x, const Tensor& mask, double negative_slope, at::IntArrayRef stride) {
  static const auto op =
      find_operator<Tensor(const Tensor&, const Tensor&, double, at::IntArrayRef)>("wgan_fast::apply_mask");
  return op.call(x, mask, negative_slope, stride);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The mask has one bit per element in the order of memory, so the tensor must be dense, in any order of dimensions.
void check_dense(const Tensor& x) {
  TORCH_CHECK_TYPE(is_supported(x.scalar_type()), "x: expected float16, bfloat16, float32 or float64, got ",
                   x.scalar_type());
  TORCH_CHECK_TYPE(x.layout() == at::kStrided, "x: expected a dense tensor, got layout ", x.layout());
  TORCH_CHECK_VALUE(x.is_non_overlapping_and_dense(), "x: expected a tensor without gaps in memory");
}

Tensor piecewise_linear_into(const Tensor& y, const Tensor& x, double negative_slope, double lower, double upper) {
  TORCH_CHECK_VALUE(!(lower > upper), "lower: expected at most upper = ", upper, ", got ", lower);
  const int64_t count = x.numel();
  const Tensor mask = at::empty({mask_bytes(count)}, x.options().dtype(at::kByte));
  if (count == 0) return mask;
  dispatch_dtype(x, [&](auto element) {
    using T = decltype(element);
    const auto bound = [](double value) { return static_cast<Accumulate<T>>(std::isinf(value) ? NAN : value); };
    const PiecewiseLinear<Accumulate<T>> f{static_cast<Accumulate<T>>(negative_slope), bound(lower), bound(upper)};
    const T* in = data<T>(x);
    T* out = mutable_data<T>(y);
    uint8_t* bits = mutable_data<uint8_t>(mask);
#ifdef WGAN_FAST_CUDA
    if (x.is_cuda()) {
      return piecewise_linear_cuda(in, out, bits, f, count, current_stream());
    }
#endif
    at::parallel_for(0, (count + MASK_BLOCK - 1) / MASK_BLOCK, GRAIN / MASK_BLOCK, [&](int64_t begin, int64_t end) {
      piecewise_linear_cpu(in, out, bits, f, begin * MASK_BLOCK, std::min(end * MASK_BLOCK, count));
    });
  });
  return mask;
}

std::tuple<Tensor, Tensor> piecewise_linear(const Tensor& x, double negative_slope, double lower, double upper) {
  check_dense(x);
  const c10::DeviceGuard guard(x.device());
  const Tensor y = at::empty_like(x);
  return {y, piecewise_linear_into(y, x, negative_slope, lower, upper)};
}

Tensor piecewise_linear_(const Tensor& x, double negative_slope, double lower, double upper) {
  check_dense(x);
  const c10::DeviceGuard guard(x.device());
  return piecewise_linear_into(x, x, negative_slope, lower, upper);
}

// Whether these are strides of a tensor without gaps or overlap, in any order of dimensions.
bool is_dense(at::IntArrayRef sizes, at::IntArrayRef stride) {
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

// `stride` is that of the activation's input: the order of the mask's bits.
Tensor apply_mask_forward(const Tensor& x, const Tensor& mask, double negative_slope, at::IntArrayRef stride) {
  TORCH_CHECK_TYPE(is_supported(x.scalar_type()), "x: expected float16, bfloat16, float32 or float64, got ",
                   x.scalar_type());
  TORCH_CHECK_TYPE(mask.scalar_type() == at::kByte, "mask: expected uint8, got ", mask.scalar_type());
  TORCH_CHECK_VALUE(mask.device() == x.device(), "mask is on ", mask.device(), " and x on ", x.device());
  TORCH_CHECK_VALUE(mask.dim() == 1 && mask.is_contiguous() && mask.numel() == mask_bytes(x.numel()), "mask: expected ",
                    mask_bytes(x.numel()), " bytes, got shape ", mask.sizes());
  TORCH_CHECK_VALUE(stride.size() == x.sizes().size(), "stride: expected ", x.dim(), " numbers, got ", stride);
  TORCH_CHECK_VALUE(x.numel() == 0 || is_dense(x.sizes(), stride), "stride: ", stride, " does not fill the memory of ",
                    x.sizes(), " without gaps");
  const c10::DeviceGuard guard(x.device());
  const Tensor y = at::empty_strided(x.sizes(), stride, x.options());
  if (y.numel() == 0) return y;
  const Tensor dense = x.strides() == stride ? x : at::empty_like(y).copy_(x);
  dispatch_dtype(x, [&](auto element) {
    using T = decltype(element);
    const T* in = data<T>(dense);
    const uint8_t* bits = data<uint8_t>(mask);
    T* out = mutable_data<T>(y);
    const auto slope = static_cast<Accumulate<T>>(negative_slope);
    const int64_t count = y.numel();
#ifdef WGAN_FAST_CUDA
    if (x.is_cuda()) {
      return apply_mask_cuda(in, bits, out, slope, count, current_stream());
    }
#endif
    at::parallel_for(0, (count + MASK_BLOCK - 1) / MASK_BLOCK, GRAIN / MASK_BLOCK, [&](int64_t begin, int64_t end) {
      apply_mask_cpu(in, bits, out, slope, begin * MASK_BLOCK, std::min(end * MASK_BLOCK, count));
    });
  });
  return y;
}

// The mask is constant in x, so double backward returns an undefined gradient for x.
void save(AutogradContext* context, const Tensor& mask, double negative_slope, at::IntArrayRef stride) {
  context->set_materialize_grads(false);
  context->save_for_backward({mask});
  context->saved_data["negative_slope"] = negative_slope;
  context->saved_data["stride"] = stride.vec();
}

Tensor masked_gradient(AutogradContext* context, const Tensor& grad) {
  if (!grad.defined()) return Tensor();
  auto& saved = context->saved_data;
  return dispatch_apply_mask(grad, context->get_saved_variables()[0], saved["negative_slope"].toDouble(),
                             saved["stride"].toIntVector());
}

class ApplyMask : public torch::autograd::Function<ApplyMask> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& mask, double negative_slope,
                        at::IntArrayRef stride) {
    const at::AutoDispatchBelowADInplaceOrView below;
    save(context, mask, negative_slope, stride);
    return dispatch_apply_mask(x, mask, negative_slope, stride);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    return {masked_gradient(context, grads[0]), Tensor(), Tensor(), Tensor()};
  }
};

Tensor apply_mask_autograd(const Tensor& x, const Tensor& mask, double negative_slope, at::IntArrayRef stride) {
  return ApplyMask::apply(x, mask, negative_slope, stride);
}

// Returns y alone: autograd allows a function that changes a view in place only one output.
class Activation : public torch::autograd::Function<Activation> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, double negative_slope, double lower, double upper,
                        bool inplace, Tensor* mask) {
    const at::AutoDispatchBelowADInplaceOrView below;
    Tensor y = x;
    if (inplace) {
      *mask = dispatch_piecewise_linear_(x, negative_slope, lower, upper);
      context->mark_dirty({x});
    } else {
      std::tie(y, *mask) = dispatch_piecewise_linear(x, negative_slope, lower, upper);
    }
    save(context, *mask, negative_slope, x.strides());
    context->saved_data["plateau"] = lower != 0 || std::isfinite(upper);
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(6);
    result[0] = masked_gradient(context, grads[0]);
    return result;
  }
};

std::tuple<Tensor, Tensor> piecewise_linear_autograd(const Tensor& x, double negative_slope, double lower,
                                                     double upper) {
  Tensor mask;
  const Tensor y = Activation::apply(x, negative_slope, lower, upper, /*inplace=*/false, &mask);
  return {y, mask};
}

Tensor piecewise_linear_autograd_(const Tensor& x, double negative_slope, double lower, double upper) {
  torch::autograd::check_inplace(x, x.requires_grad());  // before anything is written
  Tensor mask;
  Activation::apply(x, negative_slope, lower, upper, /*inplace=*/true, &mask);
  return mask;
}

// Increments the version even where autograd is not dispatched, as in inference mode.
Tensor piecewise_linear_increment_version_(const Tensor& x, double negative_slope, double lower, double upper) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const Tensor mask = dispatch_piecewise_linear_(x, negative_slope, lower, upper);
  torch::autograd::increment_version(x);
  return mask;
}

void implement(torch::Library& library) {
  library.impl("piecewise_linear", piecewise_linear);
  library.impl("piecewise_linear_", piecewise_linear_);
  library.impl("apply_mask", apply_mask_forward);
}

}  // namespace

bool is_piecewise_linear(const torch::autograd::Node& node) {
  return typeid(node) == typeid(torch::autograd::CppNode<Activation>) ||
         typeid(node) == typeid(torch::autograd::CppNode<ApplyMask>);
}

bool has_plateau(const torch::autograd::Node& node) {
  if (typeid(node) != typeid(torch::autograd::CppNode<Activation>)) return false;
  const auto& saved = static_cast<const torch::autograd::CppNode<Activation>&>(node).ctx_.saved_data;
  return saved.at("plateau").toBool();
}

Tensor plateau_of(torch::autograd::Node& node, const Tensor& y) {
  auto& context = static_cast<torch::autograd::CppNode<Activation>&>(node).ctx_;
  const Tensor mask = context.get_saved_variables()[0];
  return dispatch_apply_mask(y, ~mask, 0.0, context.saved_data["stride"].toIntVector());
}

TORCH_LIBRARY_IMPL(wgan_fast, CPU, library) { implement(library); }
#ifdef WGAN_FAST_CUDA
TORCH_LIBRARY_IMPL(wgan_fast, CUDA, library) { implement(library); }
#endif
TORCH_LIBRARY_IMPL(wgan_fast, ADInplaceOrView, library) {
  library.impl("piecewise_linear_", piecewise_linear_increment_version_);
}
TORCH_LIBRARY_IMPL(wgan_fast, Autograd, library) {
  library.impl("piecewise_linear", piecewise_linear_autograd);
  library.impl("piecewise_linear_", piecewise_linear_autograd_);
  library.impl("apply_mask", apply_mask_autograd);
}

}  // namespace wgan_fast
