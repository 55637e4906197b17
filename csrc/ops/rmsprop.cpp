#include "kernels/rmsprop.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/library.h>

#include <optional>

#include "ops/tensor_list.h"

namespace wgan_fast {
namespace {

// Checks that a tensor has the device, type and shape of params[i].
void check_belongs(const Tensor& tensor, const char* name, const Tensor& weight, size_t i) {
  TORCH_CHECK_VALUE(tensor.device() == weight.device(), name, "[", i, "] is on ", tensor.device(), " and params[", i,
                    "] on ", weight.device());
  TORCH_CHECK_TYPE(tensor.scalar_type() == weight.scalar_type(), name, "[", i, "] is ", tensor.scalar_type(),
                   " and params[", i, "] ", weight.scalar_type());
  TORCH_CHECK_VALUE(tensor.sizes() == weight.sizes(), name, "[", i, "] has shape ", tensor.sizes(), " and params[", i,
                    "] ", weight.sizes());
}

void check_number(const Tensor& tensor, const char* name) {
  TORCH_CHECK_VALUE(tensor.numel() == 1, name, ": expected one number, got shape ", tensor.sizes());
  TORCH_CHECK_TYPE(at::isFloatingType(tensor.scalar_type()), name, ": expected a floating-point number, got ",
                   tensor.scalar_type());
}

bool same_strides(const Tensor& a, const Tensor& b) {
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) != 1 && a.stride(d) != b.stride(d)) return false;
  }
  return true;
}

// The tensor, or a copy with the strides of `like`.
Tensor with_strides_of(const Tensor& tensor, const Tensor& like) {
  return same_strides(tensor, like) ? tensor : at::empty_like(like).copy_(tensor);
}

// A one-element tensor as an argument of a kernel on `device`. `copies` keeps copies alive until the launch.
Number number_for(c10::Device device, const Tensor& tensor, std::vector<Tensor>& copies) {
  if (tensor.is_cpu() || device.is_cpu()) return {tensor.item<double>(), nullptr, false};
  const bool is_double = tensor.scalar_type() == at::kDouble;
  copies.push_back(tensor.to(device, is_double ? at::kDouble : at::kFloat, /*non_blocking=*/true));
  return {0, copies.back().const_data_ptr(), is_double};
}

void rmsprop_(at::TensorList params, at::TensorList grads, at::TensorList square_averages, const Tensor& lr,
              double alpha, double eps, double weight_decay, bool maximize, double clip,
              const std::optional<Tensor>& grad_scale, const std::optional<Tensor>& found_inf) {
  TORCH_CHECK_VALUE(grads.size() == params.size(), "grads: expected ", params.size(), " tensors as of params, got ",
                    grads.size());
  TORCH_CHECK_VALUE(square_averages.size() == params.size(), "square_averages: expected ", params.size(),
                    " tensors as of params, got ", square_averages.size());
  TORCH_CHECK_VALUE(clip >= 0, "clip: expected a number >= 0, got ", clip);
  check_number(lr, "lr");
  if (grad_scale) check_number(*grad_scale, "grad_scale");
  if (found_inf) check_number(*found_inf, "found_inf");
  for (size_t i = 0; i < params.size(); ++i) {
    check_weights(params[i], "params", i);
    check_weights(square_averages[i], "square_averages", i);
    check_belongs(grads[i], "grads", params[i], i);
    check_belongs(square_averages[i], "square_averages", params[i], i);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;  // autograd must not record the copies below
  ByDevice<Parameter> by_device;
  std::vector<Tensor> copies;                                // kept alive until the launch
  std::vector<std::pair<Tensor, Tensor>> to_be_copied_back;  // (from, to)
  for (size_t i = 0; i < params.size(); ++i) {
    if (params[i].numel() == 0) continue;
    const Tensor weight = params[i].is_non_overlapping_and_dense() ? params[i] : params[i].clone();
    const Tensor gradient = with_strides_of(grads[i], weight);
    const Tensor square_average = with_strides_of(square_averages[i], weight);
    if (!weight.is_same(params[i])) to_be_copied_back.emplace_back(weight, params[i]);
    if (!square_average.is_same(square_averages[i])) {
      to_be_copied_back.emplace_back(square_average, square_averages[i]);
    }
    if (!gradient.is_same(grads[i])) copies.push_back(gradient);
    by_device.add(weight.device(),
                  {weight.mutable_data_ptr(), gradient.const_data_ptr(), square_average.mutable_data_ptr(),
                   weight.numel(), kernel_dtype(weight.scalar_type())});
  }
  for (const auto& [device, list] : by_device) {
    const auto number = [&, device = device](const std::optional<Tensor>& tensor, double otherwise) {
      return tensor ? number_for(device, *tensor, copies) : Number{otherwise, nullptr, false};
    };
    const RmspropStep step{number_for(device, lr, copies),
                           number(grad_scale, 1),
                           number(found_inf, 0),
                           alpha,
                           eps,
                           weight_decay,
                           clip,
                           maximize};
#ifdef WGAN_FAST_CUDA
    if (device.is_cuda()) {
      const c10::DeviceGuard device_guard(device);
      rmsprop_cuda(list.data(), static_cast<int64_t>(list.size()), step, current_stream());
      continue;
    }
#endif
    if (step.found_inf.value != 0) continue;
    parallel_for_chunks(list, [&step](const Parameter& parameter, int64_t begin, int64_t end) {
      rmsprop_cpu(parameter, step, begin, end);
    });
  }
  for (const auto& [from, to] : to_be_copied_back) to.copy_(from);
  bump_versions(params);
  bump_versions(square_averages);
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, library) { library.impl("rmsprop_", rmsprop_); }
#ifdef WGAN_FAST_CUDA
TORCH_LIBRARY_IMPL(wgan_fast, CUDA, library) { library.impl("rmsprop_", rmsprop_); }
#endif
// Not differentiable.
TORCH_LIBRARY_IMPL(wgan_fast, Autograd, library) { library.impl("rmsprop_", torch::CppFunction::makeFallthrough()); }

}  // namespace wgan_fast
