// A list of tensors in one launch. The list is passed by value as a kernel argument (at most 32,764 bytes), so nothing
// is copied to the device beforehand, and a captured CUDA graph contains the list.
#pragma once

#include "launch.cuh"

namespace wgan_fast {

constexpr int64_t CHUNK = BLOCK * 32;  // elements of one tensor that a block processes at a time
constexpr int FEW = 64;                // capacity for short lists: smaller arguments are copied faster
constexpr int64_t MAX_ARGUMENT_BYTES = 32764;

// Sizes and types of the tensors; each kernel's list adds its pointers.
template <int CAPACITY>
struct TensorList {
  int64_t numel[CAPACITY];
  int64_t first_chunk[CAPACITY + 1];  // running sum of the tensors' chunks, beginning with 0
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

// Calls f(T{}, tensor, begin, end) for the chunks of this block, T the tensor's element type.
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
    dispatch_dtype(list.dtype[tensor], [&](auto element) { f(element, tensor, begin, end); });
  }
}

// Launches kernel(list, argument), several times if `count` tensors do not fit into one list. add(list, i) adds tensor
// i, or returns false if the list is full.
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
