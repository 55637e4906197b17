// Linear layers and convolutions are linear in their input: the gradient with respect to it needs the weight alone. The
// input is saved for the weight's gradient; CriticGraph releases it once no weight gradient can be requested.
#include "critic/layers.h"

#include <ATen/SavedTensorHooks.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/normalization.h"
#include "ops/normalization.h"
#include "ops/piecewise_linear.h"
#include "ops/tensors.h"

namespace wgan_fast {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::CppNode;
using torch::autograd::variable_list;

// release_input frees every saved variable, so only the input is one. The weight is in saved_data, and saved_weight
// checks its version.
void save_layer(AutogradContext* context, const Tensor& input, const Tensor& weight,
                const std::optional<Tensor>& bias = std::nullopt) {
  context->set_materialize_grads(false);
  context->save_for_backward({input});
  context->saved_data["weight"] = weight;
  if (bias) context->saved_data["bias"] = *bias;
  if (!weight.is_inference()) context->saved_data["version"] = weight._version();
}

bool is_released(AutogradContext* context) { return context->saved_data.find("released") != context->saved_data.end(); }

Tensor saved_weight(AutogradContext* context) {
  if (!is_released(context)) context->get_saved_variables();  // raises after a backward without retain_graph
  const Tensor weight = context->saved_data["weight"].toTensor();
  const auto version = context->saved_data.find("version");
  TORCH_CHECK(version == context->saved_data.end() || version->second.toInt() == weight._version(),
              "one of the variables needed for gradient computation has been modified by an inplace operation: a "
              "weight of shape ",
              weight.sizes(), " is at version ", weight._version());
  return weight;
}

Tensor saved_input(AutogradContext* context) {
  TORCH_CHECK(
      !is_released(context),
      "A tensor that the critic computed inside its gradient penalty was differentiated with respect to the "
      "critic's weights, but the penalty has freed the layers' inputs that this needs. Call the critic once more, "
      "outside of the penalty, and use the tensors of that call.");
  return context->get_saved_variables()[0];
}

// Whether the weight's gradient is zero, whatever the input was. Once the input was released, zeros still arrive in a
// third derivative through a piecewise-linear operator of PyTorch: a pool, a padding, softshrink.
bool only_zeros(AutogradContext* context, const Tensor& grad) {
  return is_released(context) && !grad.detach().any().item<bool>();
}

bool needs_bias_grad(AutogradContext* context) {
  return context->saved_data.count("bias") && context->needs_input_grad(2);
}

// y = x W^T + b
class Linear : public torch::autograd::Function<Linear> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& weight,
                        const std::optional<Tensor>& bias) {
    const at::AutoDispatchBelowADInplaceOrView below;
    save_layer(context, input, weight, bias);
    const Tensor x = rows(input, weight.size(1));
    const Tensor y = bias ? at::addmm(*bias, x, weight.t()) : x.mm(weight.t());
    std::vector<int64_t> sizes = input.sizes().vec();
    sizes.back() = weight.size(0);
    return y.view(sizes);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(3);
    if (!grads[0].defined()) return result;
    const Tensor grad = grads[0];
    const Tensor weight = saved_weight(context);
    if (context->needs_input_grad(0)) result[0] = grad.matmul(weight);
    if (context->needs_input_grad(1)) {
      result[1] = only_zeros(context, grad)
                      ? at::zeros_like(weight)
                      : rows(grad, weight.size(0)).t().mm(rows(saved_input(context), weight.size(1)));
    }
    if (needs_bias_grad(context)) result[2] = rows(grad, weight.size(0)).sum(0);
    return result;
  }

 private:
  static Tensor rows(const Tensor& tensor, int64_t width) { return tensor.reshape({-1, width}); }
};

struct Geometry {
  std::vector<int64_t> stride, padding, dilation, output_padding;
  int64_t groups;
  bool transposed;

  size_t dims() const { return stride.size(); }

  // The geometry of the transposed convolution, which maps outputs of `output_sizes` to inputs of `input_sizes`.
  Geometry transpose(at::IntArrayRef input_sizes, at::IntArrayRef output_sizes, at::IntArrayRef kernel) const {
    Geometry result = *this;
    result.transposed = !transposed;
    for (size_t d = 0; d < dims(); ++d) {
      const int64_t smallest =  // input size that gives this output size
          (output_sizes[d + 2] - 1) * stride[d] - 2 * padding[d] + dilation[d] * (kernel[d + 2] - 1) + 1;
      result.output_padding[d] = transposed ? 0 : input_sizes[d + 2] - smallest;
    }
    return result;
  }

  std::vector<int64_t> pack() const {
    std::vector<int64_t> numbers{groups, transposed};
    for (const auto* part : {&stride, &padding, &dilation, &output_padding}) {
      numbers.insert(numbers.end(), part->begin(), part->end());
    }
    return numbers;
  }

  static Geometry unpack(const std::vector<int64_t>& numbers) {
    const auto part = [&, width = (numbers.size() - 2) / 4](size_t i) {
      const auto begin = numbers.begin() + 2 + i * width;
      return std::vector<int64_t>(begin, begin + width);
    };
    return {part(0), part(1), part(2), part(3), numbers[0], numbers[1] != 0};
  }
};

// With few output channels, as those of an image, PyTorch's transposed convolution on the CPU is 2 to 5 times slower
// than a matrix product and col2im.
bool is_narrow(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, const Geometry& g) {
  const bool wide_type = input.scalar_type() == at::kFloat || input.scalar_type() == at::kDouble;
  return g.transposed && input.is_cpu() && wide_type && !bias && weight.dim() == 4 && g.groups == 1 &&
         weight.size(1) <= 4;
}

Tensor narrow_transposed_convolution(const Tensor& input, const Tensor& weight, const Geometry& g) {
  std::vector<int64_t> output_size(2);
  for (size_t d = 0; d < 2; ++d) {
    output_size[d] = (input.size(d + 2) - 1) * g.stride[d] - 2 * g.padding[d] +
                     g.dilation[d] * (weight.size(d + 2) - 1) + g.output_padding[d] + 1;
  }
  const Tensor windows = weight.flatten(1).t().matmul(input.flatten(2));
  return at::col2im(windows, output_size, weight.sizes().slice(2), g.dilation, g.padding, g.stride);
}

class Convolution : public torch::autograd::Function<Convolution> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& weight,
                        const std::optional<Tensor>& bias, const Geometry& g) {
    const at::AutoDispatchBelowADInplaceOrView below;
    save_layer(context, input, weight, bias);
    context->saved_data["geometry"] = g.pack();
    context->saved_data["input_sizes"] = input.sizes().vec();
    if (is_narrow(input, weight, bias, g)) return narrow_transposed_convolution(input, weight, g);
    return at::convolution(input, weight, bias, g.stride, g.padding, g.dilation, g.transposed, g.output_padding,
                           g.groups);
  }

  // The input's gradient is the transposed convolution, again a Convolution, so every weight gradient, also in double
  // backward, comes from at::convolution_backward. PyTorch's own double backward computes it as a convolution whose
  // kernel is as large as the output map, which is slower.
  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(4);
    if (!grads[0].defined()) return result;
    const Tensor grad = grads[0];
    const Tensor weight = saved_weight(context);
    const Geometry g = Geometry::unpack(context->saved_data["geometry"].toIntVector());
    const bool needs_weight = context->needs_input_grad(1), needs_bias = needs_bias_grad(context);
    if (context->needs_input_grad(0)) {
      const auto input_sizes = context->saved_data["input_sizes"].toIntVector();
      result[0] = apply(grad, weight, std::nullopt, g.transpose(input_sizes, grad.sizes(), weight.sizes()));
    }
    if ((needs_weight || needs_bias) && only_zeros(context, grad)) {
      if (needs_weight) result[1] = at::zeros_like(weight);
      if (needs_bias) result[2] = at::zeros_like(context->saved_data["bias"].toTensor());
    } else if (needs_weight || needs_bias) {
      const std::vector<int64_t> bias_sizes{grad.size(1)};
      std::tie(std::ignore, result[1], result[2]) =
          at::convolution_backward(grad, saved_input(context), weight, bias_sizes, g.stride, g.padding, g.dilation,
                                   g.transposed, g.output_padding, g.groups, {false, needs_weight, needs_bias});
    }
    return result;
  }
};

// y = x for x > 0, else w x, with one weight w, or one for each channel. The weight is learned, so the backward
// positive(g) + w negative(g), of which one term is 0 in each element, consists of differentiable operators.
class PReLU : public torch::autograd::Function<PReLU> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& weight) {
    const at::AutoDispatchBelowADInplaceOrView below;
    save_layer(context, input, weight);
    context->saved_data["mask"] =
        std::get<1>(dispatch_piecewise_linear(input, 0.0, 0.0, std::numeric_limits<double>::infinity()));
    context->saved_data["stride"] = input.strides().vec();
    return at::prelu(input, weight);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list result(2);
    if (!grads[0].defined()) return result;
    const Tensor grad = grads[0];
    const Tensor weight = saved_weight(context);
    const Tensor mask = context->saved_data["mask"].toTensor();
    const std::vector<int64_t> stride = context->saved_data["stride"].toIntVector();
    const auto positive = [&](const Tensor& tensor) { return dispatch_apply_mask(tensor, mask, 0.0, stride); };
    const auto negative = [&](const Tensor& tensor) { return dispatch_apply_mask(tensor, ~mask, 0.0, stride); };
    std::vector<int64_t> per_channel(grad.dim(), 1);
    if (weight.numel() != 1) per_channel[1] = weight.numel();
    if (context->needs_input_grad(0)) result[0] = positive(grad) + weight.reshape(per_channel) * negative(grad);
    if (context->needs_input_grad(1) && only_zeros(context, grad)) {
      result[1] = at::zeros_like(weight);
    } else if (context->needs_input_grad(1)) {
      result[1] = negative(grad * saved_input(context)).sum_to_size(per_channel).reshape_as(weight);
    }
    return result;
  }
};

// Casts to the lower precision under autocast, as PyTorch's layers do, with cached conversions of weights.
Tensor under_autocast(const Tensor& tensor, at::DeviceType device) {
  if (!at::autocast::is_autocast_enabled(device)) return tensor;
  return at::autocast::cached_cast(at::autocast::get_lower_precision_fp_from_device_type(device), tensor, device);
}

std::optional<Tensor> under_autocast(const std::optional<Tensor>& tensor, at::DeviceType device) {
  return tensor ? std::optional(under_autocast(*tensor, device)) : tensor;
}

// A bias of another shape might broadcast; PyTorch's layer then handles it.
bool is_plain_bias(const std::optional<Tensor>& bias, int64_t size) {
  return !bias || (is_plain(*bias) && bias->dim() == 1 && bias->size(0) == size);
}

// With such padding, the convolution back from the output has more elements than the input.
bool output_padding_beyond_stride(const Geometry& g) {
  for (size_t d = 0; d < g.dims(); ++d) {
    if (g.output_padding[d] >= g.stride[d]) return true;
  }
  return false;
}

std::vector<int64_t> per_dimension(const std::vector<int64_t>& numbers, size_t dims) {
  return numbers.size() == 1 ? std::vector<int64_t>(dims, numbers[0]) : numbers;
}

}  // namespace

bool is_plain(const Tensor& tensor) {
  using c10::DispatchKey;
  constexpr c10::DispatchKeySet special({DispatchKey::Python, DispatchKey::FuncTorchBatched,
                                         DispatchKey::FuncTorchGradWrapper, DispatchKey::Negative,
                                         DispatchKey::Conjugate, DispatchKey::ZeroTensor});
#ifdef WGAN_FAST_CUDA
  const bool has_kernels = tensor.is_cpu() || tensor.is_cuda();
#else
  const bool has_kernels = tensor.is_cpu();
#endif
  return has_kernels && is_supported(tensor.scalar_type()) && tensor.layout() == at::kStrided &&
         !tensor.key_set().has_any(special) &&
         !c10::impl::tls_is_dispatch_key_included(DispatchKey::FuncTorchDynamicLayerFrontMode) &&
         !at::SavedTensorDefaultHooks::get_hooks();
}

std::optional<Tensor> linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias) {
  if (!is_plain(input) || !is_plain(weight) || weight.dim() != 2 || !is_plain_bias(bias, weight.size(0)) ||
      input.dim() == 0 || input.numel() == 0 || input.size(-1) != weight.size(1)) {
    return std::nullopt;
  }
  const at::DeviceType device = input.device().type();
  return Linear::apply(under_autocast(input, device), under_autocast(weight, device), under_autocast(bias, device));
}

std::optional<Tensor> convolution(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                                  const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                                  const std::vector<int64_t>& dilation, bool transposed,
                                  const std::vector<int64_t>& output_padding, int64_t groups) {
  if (!is_plain(input) || !is_plain(weight) || (bias && !is_plain(*bias))) return std::nullopt;
  if (weight.dim() < 3 || input.dim() != weight.dim()) return std::nullopt;  // one sample without a batch, or an error
  const size_t dims = weight.dim() - 2;
  const Geometry g{per_dimension(stride, dims),
                   per_dimension(padding, dims),
                   per_dimension(dilation, dims),
                   per_dimension(output_padding, dims),
                   groups,
                   transposed};
  for (const auto* part : {&g.stride, &g.padding, &g.dilation, &g.output_padding}) {
    if (part->size() != dims) return std::nullopt;
  }
  if (transposed && output_padding_beyond_stride(g)) return std::nullopt;
  const at::DeviceType device = input.device().type();
  return Convolution::apply(under_autocast(input, device), under_autocast(weight, device), under_autocast(bias, device),
                            g);
}

std::optional<Tensor> prelu(const Tensor& input, const Tensor& weight) {
  if (!is_plain(input) || !is_plain(weight) || !input.is_non_overlapping_and_dense() || weight.dim() > 1 ||
      input.dim() < (weight.numel() == 1 ? 0 : 2) || input.scalar_type() != weight.scalar_type()) {
    return std::nullopt;
  }
  return PReLU::apply(input, weight);
}

// Under autocast PyTorch chooses a precision for each function.
std::optional<std::tuple<Tensor, Tensor>> normalization(const Tensor& input, const std::optional<Tensor>& weight,
                                                        const std::optional<Tensor>& bias,
                                                        const std::vector<int64_t>& shape, double eps, bool centered) {
  const bool too_large = input.is_cuda() && shape[0] * shape[1] * shape[2] >= SAMPLE_LIMIT_CUDA;
  if (!is_plain(input) || too_large || input.numel() == 0 || at::autocast::is_autocast_enabled(input.device().type())) {
    return std::nullopt;
  }
  std::optional<Tensor> flat_weight = weight, flat_bias = bias;
  for (auto* parameter : {&flat_weight, &flat_bias}) {
    if (!*parameter) continue;
    if (!is_plain(**parameter) || (*parameter)->scalar_type() != input.scalar_type()) return std::nullopt;
    if ((*parameter)->dim() != 1) *parameter = (*parameter)->reshape({-1});
    if ((*parameter)->numel() != shape[0] * shape[1]) return std::nullopt;
  }
  return dispatch_normalization(input, flat_weight, flat_bias, shape, eps, centered);
}

template <class Function>
bool is(const Node& node) {
  return typeid(node) == typeid(CppNode<Function>);
}

bool is_layer(const Node& node) { return is<Linear>(node) || is<Convolution>(node) || is<PReLU>(node); }

bool is_prelu(const Node& node) { return is<PReLU>(node); }

Tensor layer_bias(Node& layer) {
  const auto bias_of = [](const auto& saved) {
    const auto bias = saved.find("bias");
    return bias == saved.end() ? Tensor() : bias->second.toTensor();
  };
  if (is<Linear>(layer)) return bias_of(static_cast<CppNode<Linear>&>(layer).ctx_.saved_data);
  if (!is<Convolution>(layer)) return Tensor();
  auto& saved = static_cast<CppNode<Convolution>&>(layer).ctx_.saved_data;
  const Tensor bias = bias_of(saved);
  if (!bias.defined()) return bias;
  std::vector<int64_t> per_channel(saved["weight"].toTensor().dim() - 1, 1);
  per_channel[0] = bias.size(0);
  return bias.view(per_channel);
}

template <class Function>
void release_input_of(Node& layer) {
  if (!is<Function>(layer)) return;
  auto& node = static_cast<CppNode<Function>&>(layer);
  node.ctx_.saved_data["released"] = true;
  node.release_variables();
}

void release_input(Node& layer) {
  release_input_of<Linear>(layer);
  release_input_of<Convolution>(layer);
  release_input_of<PReLU>(layer);
}

}  // namespace wgan_fast
