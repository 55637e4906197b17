// A list of tensors of one type in one launch. The list is passed by value as a kernel argument (at most 32,764 bytes),
// so nothing is copied to the device beforehand, and a captured CUDA graph contains the list.
#pragma once

#include "launch.cuh"

namespace wgan_fast {

constexpr int FEW = 64;  // capacity for short lists: smaller arguments are copied faster
constexpr int64_t MAX_ARGUMENT_BYTES = 32764;

// Blocks that short lists are spread over: eight for each multiprocessor of the largest GPU. Longer lists take chunks
// of up to MAX_TILES tiles, because each chunk has to find its tensor before it loads. Tests lower the number.
#ifndef WGAN_FAST_LIST_BLOCKS
#define WGAN_FAST_LIST_BLOCKS 1024
#endif
constexpr int64_t LIST_BLOCKS = WGAN_FAST_LIST_BLOCKS;
constexpr int64_t MAX_TILES = 8;

// Sizes of the tensors; each kernel's list adds its pointers.
template <int CAPACITY>
struct TensorList {
  int64_t numel[CAPACITY];
  int64_t first_chunk[CAPACITY + 1];  // running sum of the tensors' chunks, beginning with 0
  int chunk;                          // elements of one tensor that a block processes at a time
  int count;

  bool full() const { return count == CAPACITY; }

  // Returns the new tensor's index.
  int add(int64_t elements) {
    numel[count] = elements;
    first_chunk[count + 1] = first_chunk[count] + (elements + chunk - 1) / chunk;
    return count++;
  }
};

// Calls f(tensor, begin, count) for the chunks of this block: `count` elements of the tensor, from element `begin` on.
template <class List, class F>
__device__ inline void for_each_chunk(const List& list, F f) {
  for (int64_t chunk = blockIdx.x; chunk < list.first_chunk[list.count]; chunk += gridDim.x) {
    int tensor = 0;
    for (int above = list.count; above - tensor > 1;) {
      const int middle = (tensor + above) / 2;
      (list.first_chunk[middle] <= chunk ? tensor : above) = middle;
    }
    const int64_t begin = (chunk - list.first_chunk[tensor]) * list.chunk;
    const int64_t rest = list.numel[tensor] - begin;
    f(tensor, begin, rest < list.chunk ? static_cast<int>(rest) : list.chunk);
  }
}

// Calls load(u, i), then use(u, i), for this thread's whole vectors of [begin, end), TOGETHER at a time; i is the
// vector's first element.
template <int WIDTH, int TOGETHER, class Load, class Use>
__device__ inline void for_each_vector_of_chunk(int begin, int end, Load load, Use use) {
  KEEP_LOOP
  for (int first = begin + static_cast<int>(threadIdx.x) * WIDTH; first < end; first += BLOCK * TOGETHER * WIDTH) {
    UNROLL_LOOP
    for (int u = 0; u < TOGETHER; ++u) {
      const int i = first + u * BLOCK * WIDTH;
      if (i < end) load(u, i);
    }
    UNROLL_LOOP
    for (int u = 0; u < TOGETHER; ++u) {
      const int i = first + u * BLOCK * WIDTH;
      if (i < end) use(u, i);
    }
  }
}

// The number of elements of a chunk that whole vectors have; 0 if an array is not aligned to 16 bytes.
template <class T>
__device__ inline int in_vectors(bool aligned, int count) {
  return aligned ? count - count % FULL_WIDTH<T> : 0;
}

// Launches kernel(list, argument) for the tensors of the type T among `count`, several times if they do not fit into
// one list. add(list, tensor) adds one, or returns false if the list is full. TOGETHER: vectors that a thread of the
// kernel loads at a time.
template <class T, int TOGETHER, class List, class Argument, class Tensor, class Add>
void launch_lists(void (*kernel)(List, Argument), const Tensor* tensors, int64_t count, Add add, Argument argument,
                  cudaStream_t stream) {
  constexpr int64_t TILE_ELEMENTS = BLOCK * TOGETHER * FULL_WIDTH<T>;
  int64_t elements = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (tensors[i].dtype == Scalar<T>::dtype) elements += tensors[i].numel;
  }
  if (elements == 0) return;
  const int64_t tiles = std::min(std::max<int64_t>(1, elements / (TILE_ELEMENTS * LIST_BLOCKS)), MAX_TILES);
  for (int64_t next = 0; next < count;) {
    List list{};
    list.chunk = static_cast<int>(tiles * TILE_ELEMENTS);
    for (; next < count && !list.full(); ++next) {
      if (tensors[next].dtype == Scalar<T>::dtype && !add(list, tensors[next])) break;
    }
    const int64_t blocks = std::min(list.first_chunk[list.count], MAX_BLOCKS);
    if (blocks > 0) launch(kernel, blocks, stream, list, argument);
  }
}

// Calls f(T{}) for each of the types.
template <class F>
void for_each_dtype(F f) {
  f(Half{});
  f(BFloat16{});
  f(float{});
  f(double{});
}

}  // namespace wgan_fast
