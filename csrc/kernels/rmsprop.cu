#include "rmsprop.h"
#include "tensor_list.cuh"

namespace wgan_fast {
namespace {

constexpr int MANY = 768;

template <int CAPACITY>
struct List : TensorList<CAPACITY> {
  void* weight[CAPACITY];
  const void* gradient[CAPACITY];
  void* square_average[CAPACITY];
};
static_assert(sizeof(List<MANY>) + sizeof(RmspropStep) <= MAX_ARGUMENT_BYTES, "a kernel's arguments are limited");

template <int WIDTH, class T>
__device__ void rmsprop_chunk(T* weight, const T* gradient, T* square_average, const Rmsprop<T>& formula, int64_t begin,
                              int64_t end) {
  constexpr int TOGETHER = 2;  // six loads in flight
  for (int64_t first = begin + threadIdx.x * WIDTH; first < end; first += BLOCK * TOGETHER * WIDTH) {
    Vector<T, WIDTH> weights[TOGETHER], square_averages[TOGETHER], gradients[TOGETHER];
    for (int u = 0; u < TOGETHER; ++u) {
      const int64_t i = first + u * BLOCK * WIDTH;
      weights[u] = load<WIDTH>(weight, i, end);
      square_averages[u] = load<WIDTH>(square_average, i, end);
      gradients[u] = load<WIDTH>(gradient, i, end);
    }
    for (int u = 0; u < TOGETHER; ++u) {
      const int64_t i = first + u * BLOCK * WIDTH;
      for (int k = 0; k < WIDTH; ++k) {
        rmsprop(weights[u].at[k], gradients[u].at[k], square_averages[u].at[k], formula);
      }
      store<WIDTH>(weight, i, end, weights[u]);
      store<WIDTH>(square_average, i, end, square_averages[u]);
    }
  }
}

template <int CAPACITY>
__global__ void __launch_bounds__(BLOCK, 3)  // enough registers for six loads of any type without a spill
    rmsprop_kernel(const __grid_constant__ List<CAPACITY> list, const __grid_constant__ RmspropStep step) {
  if (step.found_inf.get() != 0) return;
  for_each_chunk(list, [&](auto element, int tensor, int64_t begin, int64_t end) {
    using T = decltype(element);
    T* weight = static_cast<T*>(list.weight[tensor]);
    const T* gradient = static_cast<const T*>(list.gradient[tensor]);
    T* square_average = static_cast<T*>(list.square_average[tensor]);
    const auto formula = step.formula<T>();
    if (aligned(weight) && aligned(gradient) && aligned(square_average)) {
      rmsprop_chunk<FULL_WIDTH<T>>(weight, gradient, square_average, formula, begin, end);
    } else {
      rmsprop_chunk<1>(weight, gradient, square_average, formula, begin, end);
    }
  });
}

template <int CAPACITY>
void rmsprop_lists(const Parameter* parameters, int64_t count, const RmspropStep& step, cudaStream_t stream) {
  const auto add = [parameters](List<CAPACITY>& list, int64_t next) {
    const Parameter& parameter = parameters[next];
    const int i = list.add(parameter.numel, parameter.dtype);
    list.weight[i] = parameter.weight;
    list.gradient[i] = parameter.gradient;
    list.square_average[i] = parameter.square_average;
    return true;
  };
  launch_lists(rmsprop_kernel<CAPACITY>, count, add, step, stream);
}

}  // namespace

void rmsprop_cuda(const Parameter* parameters, int64_t count, const RmspropStep& step, cudaStream_t stream) {
  if (count <= FEW) {
    rmsprop_lists<FEW>(parameters, count, step, stream);
  } else {
    rmsprop_lists<MANY>(parameters, count, step, stream);
  }
}

}  // namespace wgan_fast
