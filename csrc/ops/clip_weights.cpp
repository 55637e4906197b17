#include "kernels/clip_weights.h"

#include <torch/library.h>

#include "ops/tensor_list.h"

namespace wgan_fast {
namespace {

constexpr const char* ARGUMENT = "module_or_tensors";  // the public function's argument, for error messages

Layout layout_of(const Tensor& tensor, size_t index) {
  std::vector<int64_t> order;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) != 1) order.push_back(d);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return tensor.stride(a) > tensor.stride(b); });
  Layout layout{};
  for (const int64_t d : order) {
    const int last = layout.dims - 1;
    if (last >= 0 && layout.stride[last] == tensor.size(d) * tensor.stride(d)) {
      layout.size[last] *= tensor.size(d);
      layout.stride[last] = tensor.stride(d);
    } else {
      TORCH_CHECK_VALUE(layout.dims < MAX_DIMS, ARGUMENT, "[", index, "]: more than ", MAX_DIMS,
                        " dimensions with gaps between them; clip a contiguous tensor instead");
      layout.size[layout.dims] = tensor.size(d);
      layout.stride[layout.dims] = tensor.stride(d);
      ++layout.dims;
    }
  }
  return layout;
}

void clip_weights_(at::TensorList tensors, double bound) {
  TORCH_CHECK_VALUE(std::isfinite(bound) && bound >= 0, "bound: expected a finite number of at least 0, got ", bound);
  ByDevice<Weights> by_device;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& tensor = tensors[i];
    check_weights(tensor, ARGUMENT, i);
    if (tensor.numel() == 0) continue;
    const Layout layout = layout_of(tensor, i);
    by_device.add(tensor.device(),
                  {tensor.mutable_data_ptr(), tensor.numel(), kernel_dtype(tensor.scalar_type()), layout});
  }
  for (const auto& [device, list] : by_device) {
#ifdef WGAN_FAST_CUDA
    if (device.is_cuda()) {
      const c10::DeviceGuard guard(device);
      clip_weights_cuda(list.data(), static_cast<int64_t>(list.size()), bound, current_stream());
      continue;
    }
#endif
    parallel_for_chunks(list, [bound](const Weights& weights, int64_t begin, int64_t end) {
      clip_weights_cpu(weights, bound, begin, end);
    });
  }
  bump_versions(tensors);
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, library) { library.impl("clip_weights_", clip_weights_); }
#ifdef WGAN_FAST_CUDA
TORCH_LIBRARY_IMPL(wgan_fast, CUDA, library) { library.impl("clip_weights_", clip_weights_); }
#endif
// Not differentiable.
TORCH_LIBRARY_IMPL(wgan_fast, Autograd, library) {
  library.impl("clip_weights_", torch::CppFunction::makeFallthrough());
}

}  // namespace wgan_fast
