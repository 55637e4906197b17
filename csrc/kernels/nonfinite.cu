#include "formulas.h"
#include "nonfinite.h"
#include "tensor_list.cuh"

namespace wgan_fast {
namespace {

constexpr int MANY = 1024;

template <int CAPACITY>
struct List : TensorList<CAPACITY> {
  const void* data[CAPACITY];
};
static_assert(sizeof(List<MANY>) + sizeof(float*) <= MAX_ARGUMENT_BYTES, "a kernel's arguments are limited");

template <int WIDTH, class T>
__device__ bool nonfinite_chunk(const T* data, int begin, int end) {
  Packed<T, WIDTH> numbers[UNROLL];
  bool found = false;
  for_each_vector_of_chunk<WIDTH, UNROLL>(
      begin, end, [&](int u, int i) { numbers[u] = load_whole<WIDTH>(data, i); },
      [&](int u, int) {
        const Vector<T, WIDTH> vector = numbers[u].unpack();
        for (int k = 0; k < WIDTH; ++k) found |= !is_finite(vector.at[k]);
      });
  return found;
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(BLOCK, MIN_BLOCKS)
    nonfinite_kernel(const __grid_constant__ List<CAPACITY> list, float* found) {
  for_each_chunk(list, [&](int tensor, int64_t begin, int count) {
    const T* data = static_cast<const T*>(list.data[tensor]);
    const int whole = in_vectors<T>(aligned(data), count);
    if (nonfinite_chunk<FULL_WIDTH<T>>(data + begin, 0, whole) || nonfinite_chunk<1>(data + begin, whole, count)) {
      *found = 1;  // every thread that writes writes the same
    }
  });
}

template <class T, int CAPACITY>
void find_in_lists(const Numbers* numbers, int64_t count, float* found, cudaStream_t stream) {
  const auto add = [](List<CAPACITY>& list, const Numbers& tensor) {
    list.data[list.add(tensor.numel)] = tensor.data;
    return true;
  };
  launch_lists<T, UNROLL>(nonfinite_kernel<T, CAPACITY>, numbers, count, add, found, stream);
}

}  // namespace

void nonfinite_cuda(const Numbers* list, int64_t count, float* found, cudaStream_t stream) {
  for_each_dtype([&](auto element) {
    using T = decltype(element);
    count <= FEW ? find_in_lists<T, FEW>(list, count, found, stream)
                 : find_in_lists<T, MANY>(list, count, found, stream);
  });
}

}  // namespace wgan_fast
