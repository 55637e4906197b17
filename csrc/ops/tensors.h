// Shared by the operators: argument checks, element types, the current stream, memory layout.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "kernels/scalar.h"

namespace wgan_fast {

using at::Tensor;

inline bool is_supported(at::ScalarType type) {
  return type == at::kHalf || type == at::kBFloat16 || type == at::kFloat || type == at::kDouble;
}

// float32 for the 16-bit types, else the type itself.
inline at::ScalarType accumulate_type(at::ScalarType type) { return type == at::kDouble ? at::kDouble : at::kFloat; }

// A batch: a dense floating-point tensor with a batch dimension.
inline void check_batch(const Tensor& tensor, const char* name) {
  TORCH_CHECK_TYPE(is_supported(tensor.scalar_type()), name, ": expected float16, bfloat16, float32 or float64, got ",
                   tensor.scalar_type());
  TORCH_CHECK_TYPE(tensor.layout() == at::kStrided, name, ": expected a dense tensor, got layout ", tensor.layout());
  TORCH_CHECK_VALUE(tensor.dim() >= 1, name, ": expected a batch dimension, got a scalar");
}

inline void check_same(const Tensor& tensor, const char* name, const Tensor& other, const char* other_name) {
  TORCH_CHECK_VALUE(tensor.device() == other.device(), name, " is on ", tensor.device(), " and ", other_name, " on ",
                    other.device());
  TORCH_CHECK_TYPE(tensor.scalar_type() == other.scalar_type(), name, " is ", tensor.scalar_type(), " and ", other_name,
                   " ", other.scalar_type());
  TORCH_CHECK_VALUE(tensor.sizes() == other.sizes(), name, " has shape ", tensor.sizes(), " and ", other_name, " ",
                    other.sizes());
}

// One value per row, in the arithmetic type.
inline void check_row_values(const Tensor& values, const char* name, const Tensor& batch, const char* batch_name) {
  const at::ScalarType type = accumulate_type(batch.scalar_type());
  TORCH_CHECK_VALUE(values.device() == batch.device(), name, " is on ", values.device(), " and ", batch_name, " on ",
                    batch.device());
  TORCH_CHECK_TYPE(values.scalar_type() == type, name, ": expected ", type, ", got ", values.scalar_type());
  TORCH_CHECK_VALUE(values.dim() == 1 && values.size(0) == batch.size(0), name, ": expected shape [", batch.size(0),
                    "], got ", values.sizes());
}

// The kernels take a batch as dense [rows, length] memory. Contiguous and channels-last batches are not copied.
inline Tensor dense_rows(const Tensor& tensor) { return tensor.contiguous(tensor.suggest_memory_format()); }

inline int64_t row_length(const Tensor& tensor) { return tensor.numel() / tensor.size(0); }

// The kernels' name for PyTorch's element type.
inline Dtype kernel_dtype(at::ScalarType type) {
  switch (type) {
    case at::kHalf:
      return Dtype::float16;
    case at::kBFloat16:
      return Dtype::bfloat16;
    case at::kFloat:
      return Dtype::float32;
    case at::kDouble:
      return Dtype::float64;
    default:
      TORCH_CHECK_TYPE(false, "expected float16, bfloat16, float32 or float64, got ", type);
  }
}

// Calls f(T{}) with the kernels' element type T of the tensor.
template <class F>
void dispatch_dtype(const Tensor& tensor, F&& f) {
  dispatch_dtype(kernel_dtype(tensor.scalar_type()), f);
}

// PyTorch's CUDA stream of the current device. Through the interface of all devices: c10_cuda is not linked, which a
// CPU build of PyTorch lacks, so that one extension serves CPU and CUDA builds.
inline CUstream_st* current_stream() {
  const c10::impl::VirtualGuardImpl cuda(at::kCUDA);
  return static_cast<CUstream_st*>(cuda.getStreamNativeHandle(cuda.getStream(cuda.getDevice())));
}

template <class T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <class T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// The registered operator of this name, called through the dispatcher.
template <class Signature>
c10::TypedOperatorHandle<Signature> find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// Grain size of at::parallel_for, in elements: for fewer, waking a thread costs more than it saves.
constexpr int64_t GRAIN = 32768;

}  // namespace wgan_fast
