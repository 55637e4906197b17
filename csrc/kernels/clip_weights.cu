#include "clip_weights.h"
#include "formulas.h"
#include "launch.cuh"

namespace wgan_fast {
namespace {

constexpr int64_t CHUNK = BLOCK * 16;  // elements that a block clips
constexpr int MAX_LAYOUTS = 32;        // tensors with gaps in one launch

// The whole list travels by value in the kernel's argument, which may hold 32,764 bytes: nothing is copied to the
// device beforehand, and a captured graph keeps it.
template <int CAPACITY>
struct List {
  void* data[CAPACITY];
  int64_t numel[CAPACITY];
  int64_t first_chunk[CAPACITY + 1];  // of each tensor in the row of all chunks; the last one is their number
  Dtype dtype[CAPACITY];
  int8_t layout[CAPACITY];  // index into layouts, or -1 for a tensor without gaps
  Layout layouts[MAX_LAYOUTS];
  int count;
  int layout_count;
};
constexpr int FEW = 64;
constexpr int MANY = 1024;
static_assert(sizeof(List<MANY>) + sizeof(double) <= 32764, "a kernel's arguments are limited");

template <int WIDTH, class T>
__device__ void clip_dense(T* data, T bound, int64_t begin, int64_t end) {
  for (int64_t i = begin + threadIdx.x * WIDTH; i < end; i += BLOCK * WIDTH) {
    auto weights = load<WIDTH>(data, i, end);
    for (int k = 0; k < WIDTH; ++k) weights.at[k] = clip(weights.at[k], bound);
    store<WIDTH>(data, i, end, weights);
  }
}

template <class T>
__device__ void clip_chunk(void* pointer, const Layout* layout, double bound, int64_t begin, int64_t end) {
  T* data = static_cast<T*>(pointer);
  const T stored_bound = narrow<T>(static_cast<Accumulate<T>>(bound));
  if (layout) {
    for (int64_t i = begin + threadIdx.x; i < end; i += BLOCK) {
      T* weight = data + layout->offset(i);
      *weight = clip(*weight, stored_bound);
    }
  } else if (reinterpret_cast<uintptr_t>(pointer) % 16 == 0) {
    clip_dense<FULL_WIDTH<T>>(data, stored_bound, begin, end);
  } else {
    clip_dense<1>(data, stored_bound, begin, end);
  }
}

// Four blocks on a multiprocessor are enough to keep its memory busy, and leave registers for all types without a
// spill.
template <int CAPACITY>
__global__ void __launch_bounds__(BLOCK, 4)
    clip_weights_kernel(const __grid_constant__ List<CAPACITY> list, double bound) {
  for (int64_t chunk = blockIdx.x; chunk < list.first_chunk[list.count]; chunk += gridDim.x) {
    int tensor = 0;
    for (int above = list.count; above - tensor > 1;) {
      const int middle = (tensor + above) / 2;
      (list.first_chunk[middle] <= chunk ? tensor : above) = middle;
    }
    const int64_t begin = (chunk - list.first_chunk[tensor]) * CHUNK;
    const int64_t end = begin + CHUNK < list.numel[tensor] ? begin + CHUNK : list.numel[tensor];
    const Layout* layout = list.layout[tensor] < 0 ? nullptr : &list.layouts[list.layout[tensor]];
    void* data = list.data[tensor];
    switch (list.dtype[tensor]) {
      case Dtype::float16:
        clip_chunk<Half>(data, layout, bound, begin, end);
        break;
      case Dtype::bfloat16:
        clip_chunk<BFloat16>(data, layout, bound, begin, end);
        break;
      case Dtype::float32:
        clip_chunk<float>(data, layout, bound, begin, end);
        break;
      case Dtype::float64:
        clip_chunk<double>(data, layout, bound, begin, end);
        break;
    }
  }
}

template <int CAPACITY>
void clip_list(const Weights* weights, int64_t count, double bound, cudaStream_t stream) {
  for (int64_t next = 0; next < count;) {
    List<CAPACITY> list{};
    for (; next < count && list.count < CAPACITY; ++next) {
      const Weights& tensor = weights[next];
      if (!tensor.layout.dense() && list.layout_count == MAX_LAYOUTS) break;
      const int i = list.count++;
      list.data[i] = tensor.data;
      list.numel[i] = tensor.numel;
      list.first_chunk[i + 1] = list.first_chunk[i] + (tensor.numel + CHUNK - 1) / CHUNK;
      list.dtype[i] = tensor.dtype;
      list.layout[i] = -1;
      if (!tensor.layout.dense()) {
        list.layout[i] = static_cast<int8_t>(list.layout_count);
        list.layouts[list.layout_count++] = tensor.layout;
      }
    }
    const int64_t blocks = std::min(list.first_chunk[list.count], MAX_BLOCKS);
    if (blocks > 0) launch(clip_weights_kernel<CAPACITY>, blocks, stream, list, bound);
  }
}

}  // namespace

void clip_weights_cuda(const Weights* weights, int64_t count, double bound, cudaStream_t stream) {
  if (count <= FEW) {
    clip_list<FEW>(weights, count, bound, stream);
  } else {
    clip_list<MANY>(weights, count, bound, stream);
  }
}

}  // namespace wgan_fast
