#include "kernels/clip_weights.h"

#include <ATen/MemoryOverlap.h>
#include <torch/library.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "ops/tensors.h"

namespace wgan_fast {
namespace {

constexpr int64_t CHUNK = 16384;                       // elements that one thread does at a time
constexpr const char* ARGUMENT = "module_or_tensors";  // as the public function calls it

Dtype kernel_dtype(at::ScalarType type) {
  Dtype dtype{};
  dispatch(type, [&](auto element) { dtype = Scalar<decltype(element)>::dtype; });
  return dtype;
}

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

void check(const Tensor& tensor, size_t index) {
  TORCH_CHECK_VALUE(tensor.is_cpu() || tensor.is_cuda(), ARGUMENT, "[", index,
                    "]: expected a tensor on the CPU or a GPU, got ", tensor.device());
  TORCH_CHECK_TYPE(is_supported(tensor.scalar_type()), ARGUMENT, "[", index,
                   "]: expected float16, bfloat16, float32 or float64, got ", tensor.scalar_type());
  TORCH_CHECK_VALUE(at::has_internal_overlap(tensor) != at::MemOverlap::Yes, ARGUMENT, "[", index,
                    "]: several of its elements share one place in memory; clip the tensor that it was expanded from");
  TORCH_CHECK_VALUE(!tensor.is_inference() || c10::InferenceMode::is_enabled(), ARGUMENT, "[", index,
                    "]: an inference tensor can be changed only inside torch.inference_mode()");
}

void clip_weights_(at::TensorList tensors, double bound) {
  TORCH_CHECK_VALUE(bound >= 0, "bound: expected a number >= 0, got ", bound);
  std::vector<std::pair<c10::Device, std::vector<Weights>>> by_device;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& tensor = tensors[i];
    check(tensor, i);
    if (tensor.numel() == 0) continue;
    const Layout layout = layout_of(tensor, i);
    auto group = std::find_if(by_device.begin(), by_device.end(),
                              [&](const auto& entry) { return entry.first == tensor.device(); });
    if (group == by_device.end()) group = by_device.insert(group, {tensor.device(), {}});
    group->second.push_back({tensor.mutable_data_ptr(), tensor.numel(), kernel_dtype(tensor.scalar_type()), layout});
  }
  for (const auto& [device, list] : by_device) {
#ifdef WGAN_FAST_CUDA
    if (device.is_cuda()) {
      const c10::DeviceGuard guard(device);
      clip_weights_cuda(list.data(), static_cast<int64_t>(list.size()), bound,
                        c10::cuda::getCurrentCUDAStream().stream());
      continue;
    }
#endif
    std::vector<int64_t> first_chunk(1, 0);
    for (const Weights& weights : list) first_chunk.push_back(first_chunk.back() + (weights.numel + CHUNK - 1) / CHUNK);
    int64_t numel = 0;
    for (const Weights& weights : list) numel += weights.numel;
    const int64_t grain = numel <= GRAIN ? first_chunk.back() : GRAIN / CHUNK;
    at::parallel_for(0, first_chunk.back(), grain, [&](int64_t begin, int64_t end) {
      size_t i = std::upper_bound(first_chunk.begin(), first_chunk.end(), begin) - first_chunk.begin() - 1;
      for (; begin < end; ++i) {
        const int64_t stop = std::min(end, first_chunk[i + 1]);
        clip_weights_cpu(list[i], bound, (begin - first_chunk[i]) * CHUNK,
                         std::min(list[i].numel, (stop - first_chunk[i]) * CHUNK));
        begin = stop;
      }
    });
  }
  // A kernel that writes through a raw pointer must say so, or autograd would use the changed weights silently.
  for (const Tensor& tensor : tensors) {
    if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, library) { library.impl("clip_weights_", clip_weights_); }
#ifdef WGAN_FAST_CUDA
TORCH_LIBRARY_IMPL(wgan_fast, CUDA, library) { library.impl("clip_weights_", clip_weights_); }
#endif
// Clipping is an update, not a function to differentiate.
TORCH_LIBRARY_IMPL(wgan_fast, Autograd, library) {
  library.impl("clip_weights_", torch::CppFunction::makeFallthrough());
}

}  // namespace wgan_fast
