#include "clip_weights.h"
#include "formulas.h"
#include "tensor_list.cuh"

namespace wgan_fast {
namespace {

constexpr int MANY = 1024;
constexpr int MAX_LAYOUTS = 32;  // tensors with gaps in one launch

template <int CAPACITY>
struct List : TensorList<CAPACITY> {
  void* data[CAPACITY];
  int8_t layout[CAPACITY];  // index into layouts, or -1 for a tensor without gaps
  Layout layouts[MAX_LAYOUTS];
  int layout_count;
};
static_assert(sizeof(List<MANY>) + sizeof(double) <= MAX_ARGUMENT_BYTES, "a kernel's arguments are limited");

template <int WIDTH, class T>
__device__ void clip_dense(T* data, T bound, int64_t begin, int64_t end) {
  for (int64_t i = begin + threadIdx.x * WIDTH; i < end; i += TILE * WIDTH) {
    Vector<T, WIDTH> weights[UNROLL];
    for (int u = 0; u < UNROLL; ++u) weights[u] = load<WIDTH>(data, i + u * BLOCK * WIDTH, end);
    for (int u = 0; u < UNROLL; ++u) {
      for (int k = 0; k < WIDTH; ++k) weights[u].at[k] = clip(weights[u].at[k], bound);
      store<WIDTH>(data, i + u * BLOCK * WIDTH, end, weights[u]);
    }
  }
}

template <class T>
__device__ void clip_chunk(T* data, const Layout* layout, double bound, int64_t begin, int64_t end) {
  const T stored_bound = narrow<T>(static_cast<Accumulate<T>>(bound));
  if (layout) {
    for (int64_t i = begin + threadIdx.x; i < end; i += BLOCK) {
      T* weight = data + layout->offset(i);
      *weight = clip(*weight, stored_bound);
    }
  } else if (aligned(data)) {
    clip_dense<FULL_WIDTH<T>>(data, stored_bound, begin, end);
  } else {
    clip_dense<1>(data, stored_bound, begin, end);
  }
}

// Four blocks on a multiprocessor saturate its memory and leave enough registers for every type without a spill.
template <int CAPACITY>
__global__ void __launch_bounds__(BLOCK, 4)
    clip_weights_kernel(const __grid_constant__ List<CAPACITY> list, double bound) {
  for_each_chunk(list, [&](auto element, int tensor, int64_t begin, int64_t end) {
    using T = decltype(element);
    const Layout* layout = list.layout[tensor] < 0 ? nullptr : &list.layouts[list.layout[tensor]];
    clip_chunk(static_cast<T*>(list.data[tensor]), layout, bound, begin, end);
  });
}

template <int CAPACITY>
void clip_lists(const Weights* weights, int64_t count, double bound, cudaStream_t stream) {
  const auto add = [weights](List<CAPACITY>& list, int64_t next) {
    const Weights& tensor = weights[next];
    const bool dense = tensor.layout.dense();
    if (!dense && list.layout_count == MAX_LAYOUTS) return false;
    const int i = list.add(tensor.numel, tensor.dtype);
    list.data[i] = tensor.data;
    list.layout[i] = dense ? -1 : static_cast<int8_t>(list.layout_count);
    if (!dense) list.layouts[list.layout_count++] = tensor.layout;
    return true;
  };
  launch_lists(clip_weights_kernel<CAPACITY>, count, add, bound, stream);
}

}  // namespace

void clip_weights_cuda(const Weights* weights, int64_t count, double bound, cudaStream_t stream) {
  if (count <= FEW) {
    clip_lists<FEW>(weights, count, bound, stream);
  } else {
    clip_lists<MANY>(weights, count, bound, stream);
  }
}

}  // namespace wgan_fast
