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
__device__ void clip_dense(T* data, T bound, int begin, int end) {
  Packed<T, WIDTH> weights[UNROLL];
  for_each_vector_of_chunk<WIDTH, UNROLL>(
      begin, end, [&](int u, int i) { weights[u] = load_whole<WIDTH>(data, i); },
      [&](int u, int i) {
        Vector<T, WIDTH> clipped = weights[u].unpack();
        for (int k = 0; k < WIDTH; ++k) clipped.at[k] = clip(clipped.at[k], bound);
        store_whole(data, i, clipped);
      });
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(BLOCK, MIN_BLOCKS)
    clip_weights_kernel(const __grid_constant__ List<CAPACITY> list, T bound) {
  for_each_chunk(list, [&](int tensor, int64_t begin, int count) {
    T* data = static_cast<T*>(list.data[tensor]);
    if (list.layout[tensor] >= 0) {
      const Layout& layout = list.layouts[list.layout[tensor]];
      KEEP_LOOP
      for (int64_t i = begin + threadIdx.x; i < begin + count; i += BLOCK) {
        T* weight = data + layout.offset(i);
        *weight = clip(*weight, bound);
      }
    } else {
      const int whole = in_vectors<T>(aligned(data), count);
      clip_dense<FULL_WIDTH<T>>(data + begin, bound, 0, whole);
      clip_dense<1>(data + begin, bound, whole, count);
    }
  });
}

template <class T, int CAPACITY>
void clip_lists(const Weights* weights, int64_t count, double bound, cudaStream_t stream) {
  const auto add = [](List<CAPACITY>& list, const Weights& tensor) {
    const bool dense = tensor.layout.dense();
    if (!dense && list.layout_count == MAX_LAYOUTS) return false;
    const int i = list.add(tensor.numel);
    list.data[i] = tensor.data;
    list.layout[i] = dense ? -1 : static_cast<int8_t>(list.layout_count);
    if (!dense) list.layouts[list.layout_count++] = tensor.layout;
    return true;
  };
  launch_lists<T, UNROLL>(clip_weights_kernel<T, CAPACITY>, weights, count, add,
                          narrow<T>(static_cast<Accumulate<T>>(bound)), stream);
}

}  // namespace

void clip_weights_cuda(const Weights* weights, int64_t count, double bound, cudaStream_t stream) {
  for_each_dtype([&](auto element) {
    using T = decltype(element);
    count <= FEW ? clip_lists<T, FEW>(weights, count, bound, stream)
                 : clip_lists<T, MANY>(weights, count, bound, stream);
  });
}

}  // namespace wgan_fast
