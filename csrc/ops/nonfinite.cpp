#include "kernels/nonfinite.h"

#include <torch/library.h>

#include <atomic>

#include "ops/tensor_list.h"

namespace wgan_fast {
namespace {

// 1 if an element is infinite or NaN, else 0: a float32 on the device of the tensors, of which there is at least one.
// Nothing waits for a GPU.
Tensor nonfinite(at::TensorList tensors) {
  const c10::Device device = tensors[0].device();
  std::vector<Numbers> list;
  std::vector<Tensor> copies;  // kept alive until the launch
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& tensor = tensors[i];
    TORCH_CHECK_VALUE(tensor.device() == device, "tensors[", i, "] is on ", tensor.device(), " and tensors[0] on ",
                      device);
    TORCH_CHECK_TYPE(is_supported(tensor.scalar_type()), "tensors[", i,
                     "]: expected float16, bfloat16, float32 or float64, got ", tensor.scalar_type());
    if (tensor.numel() == 0) continue;
    const bool dense = tensor.is_non_overlapping_and_dense();
    if (!dense) copies.push_back(tensor.contiguous());
    list.push_back(
        {(dense ? tensor : copies.back()).const_data_ptr(), tensor.numel(), kernel_dtype(tensor.scalar_type())});
  }
#ifdef WGAN_FAST_CUDA
  if (device.is_cuda()) {
    const c10::DeviceGuard guard(device);
    const Tensor found = at::zeros({}, tensors[0].options().dtype(at::kFloat));
    nonfinite_cuda(list.data(), static_cast<int64_t>(list.size()), found.mutable_data_ptr<float>(), current_stream());
    return found;
  }
#endif
  std::atomic<bool> found = false;
  parallel_for_chunks(list, [&found](const Numbers& numbers, int64_t begin, int64_t end) {
    if (nonfinite_cpu(numbers, begin, end)) found = true;
  });
  return at::scalar_tensor(found ? 1 : 0, tensors[0].options().dtype(at::kFloat));
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, library) { library.impl("nonfinite", nonfinite); }
#ifdef WGAN_FAST_CUDA
TORCH_LIBRARY_IMPL(wgan_fast, CUDA, library) { library.impl("nonfinite", nonfinite); }
#endif
// Not differentiable.
TORCH_LIBRARY_IMPL(wgan_fast, Autograd, library) { library.impl("nonfinite", torch::CppFunction::makeFallthrough()); }

}  // namespace wgan_fast
