// A list of tensors in one launch. It travels by value in the kernel's argument, which may hold 32,764 bytes: nothing
// is copied to the device beforehand, and a captured graph keeps it.
#pragma once

#include "launch.cuh"

namespace wgan_fast {

constexpr int64_t CHUNK = BLOCK * 16;  // elements of one tensor that a block does at a time
constexpr int FEW = 64;                // the capacity for short lists, whose arguments are copied faster
constexpr int64_t MAX_ARGUMENT_BYTES = 32764;

// What every list needs; a kernel adds its pointers.
template <int CAPACITY>
struct TensorList {
  int64_t numel[CAPACITY];
  int64_t first_chunk[CAPACITY + 1];  // of each tensor in the row of all chunks; the last one is their number
  Dtype dtype[CAPACITY];
  int count;

  bool full() const { return count == CAPACITY; }

  // Returns the new tensor's index.
  int add(int64_t elements, Dtype type) {
    numel[count] = elements;
    first_chunk[count + 1] = first_chunk[count] + (elements + CHUNK - 1) / CHUNK;
    dtype[count] = type;
    return count++;
  }
};

// The blocks of the grid share out the chunks: f(T{}, tensor, begin, end), T the type of the tensor's elements.
template <class List, class F>
__device__ inline void for_each_chunk(const List& list, F f) {
  for (int64_t chunk = blockIdx.x; chunk < list.first_chunk[list.count]; chunk += gridDim.x) {
    int tensor = 0;
    for (int above = list.count; above - tensor > 1;) {
      const int middle = (tensor + above) / 2;
      (list.first_chunk[middle] <= chunk ? tensor : above) = middle;
    }
    const int64_t begin = (chunk - list.first_chunk[tensor]) * CHUNK;
    const int64_t end = begin + CHUNK < list.numel[tensor] ? begin + CHUNK : list.numel[tensor];
    switch (list.dtype[tensor]) {
      case Dtype::float16:
        f(Half{}, tensor, begin, end);
        break;
      case Dtype::bfloat16:
        f(BFloat16{}, tensor, begin, end);
        break;
      case Dtype::float32:
        f(float{}, tensor, begin, end);
        break;
      case Dtype::float64:
        f(double{}, tensor, begin, end);
        break;
    }
  }
}

// Launches kernel(list, argument) until each of `count` tensors was in a list. add(list, i) puts tensor i into it, or
// returns false where it has no room.
template <class List, class Argument, class Add>
void launch_lists(void (*kernel)(List, Argument), int64_t count, Add add, Argument argument, cudaStream_t stream) {
  for (int64_t next = 0; next < count;) {
    List list{};
    while (next < count && !list.full() && add(list, next)) ++next;
    const int64_t blocks = std::min(list.first_chunk[list.count], MAX_BLOCKS);
    if (blocks > 0) launch(kernel, blocks, stream, list, argument);
  }
}

}  // namespace wgan_fast
