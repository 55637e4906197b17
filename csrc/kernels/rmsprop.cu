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
// A step as the kernel for the type T takes it. The host converts what it knows: float64 is slow on most GPUs.
template <class T>
struct DeviceStep {
  using A = Accumulate<T>;
  Rmsprop<T> known;  // a number on the device counts as 1
  Number learning_rate;
  Number grad_scale;
  Number found_inf;

  explicit DeviceStep(const RmspropStep& step)
      : known(step.formula<T>(step.learning_rate.on_device ? 1 : step.learning_rate.value,
                              step.grad_scale.on_device ? 1 : step.grad_scale.value)),
        learning_rate(step.learning_rate),
        grad_scale(step.grad_scale),
        found_inf(step.found_inf) {}

  __device__ static A read(const Number& number) {
    if (number.is_double) return static_cast<A>(*static_cast<const double*>(number.on_device));
    return *static_cast<const float*>(number.on_device);
  }
  __device__ bool is_skipped() const { return found_inf.on_device && read(found_inf) != A(0); }
  __device__ Rmsprop<T> formula() const {
    Rmsprop<T> formula = known;
    if (learning_rate.on_device) formula.learning_rate *= read(learning_rate);
    if (grad_scale.on_device) formula.gradient_factor /= read(grad_scale);
    return formula;
  }
};
static_assert(sizeof(List<MANY>) + sizeof(DeviceStep<double>) <= MAX_ARGUMENT_BYTES,
              "a kernel's arguments are limited");

// Vectors of each array: six loads in flight, or three of float64, whose arithmetic takes twice the registers.
template <class T>
constexpr int LOADED_TOGETHER = sizeof(T) == 8 ? 1 : 2;

template <int WIDTH, class T>
__device__ void rmsprop_chunk(T* weight, const T* gradient, T* square_average, const Rmsprop<T>& formula, int begin,
                              int end) {
  constexpr int TOGETHER = LOADED_TOGETHER<T>;
  Packed<T, WIDTH> weights[TOGETHER], gradients[TOGETHER], square_averages[TOGETHER];
  for_each_vector_of_chunk<WIDTH, TOGETHER>(
      begin, end,
      [&](int u, int i) {
        weights[u] = load_whole<WIDTH>(weight, i);
        gradients[u] = load_whole<WIDTH>(gradient, i);
        square_averages[u] = load_whole<WIDTH>(square_average, i);
      },
      [&](int u, int i) {
        Vector<T, WIDTH> w = weights[u].unpack(), v = square_averages[u].unpack();
        const Vector<T, WIDTH> g = gradients[u].unpack();
        for (int k = 0; k < WIDTH; ++k) rmsprop(w.at[k], g.at[k], v.at[k], formula);
        store_whole(weight, i, w);
        store_whole(square_average, i, v);
      });
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(BLOCK, MIN_BLOCKS)
    rmsprop_kernel(const __grid_constant__ List<CAPACITY> list, const __grid_constant__ DeviceStep<T> step) {
  const Rmsprop<T> formula = step.formula();
  if (step.is_skipped()) return;
  for_each_chunk(list, [&](int tensor, int64_t begin, int count) {
    T* weight = static_cast<T*>(list.weight[tensor]);
    const T* gradient = static_cast<const T*>(list.gradient[tensor]);
    T* square_average = static_cast<T*>(list.square_average[tensor]);
    const int whole = in_vectors<T>(aligned(weight) && aligned(gradient) && aligned(square_average), count);
    const auto apply = [&](auto width, int from, int to) {
      rmsprop_chunk<width>(weight + begin, gradient + begin, square_average + begin, formula, from, to);
    };
    apply(std::integral_constant<int, FULL_WIDTH<T>>(), 0, whole);
    apply(std::integral_constant<int, 1>(), whole, count);
  });
}

template <class T, int CAPACITY>
void rmsprop_lists(const Parameter* parameters, int64_t count, const RmspropStep& step, cudaStream_t stream) {
  const auto add = [](List<CAPACITY>& list, const Parameter& parameter) {
    const int i = list.add(parameter.numel);
    list.weight[i] = parameter.weight;
    list.gradient[i] = parameter.gradient;
    list.square_average[i] = parameter.square_average;
    return true;
  };
  launch_lists<T, LOADED_TOGETHER<T>>(rmsprop_kernel<T, CAPACITY>, parameters, count, add, DeviceStep<T>(step), stream);
}

}  // namespace

void rmsprop_cuda(const Parameter* parameters, int64_t count, const RmspropStep& step, cudaStream_t stream) {
  if (!step.found_inf.on_device && step.found_inf.value != 0) return;
  for_each_dtype([&](auto element) {
    using T = decltype(element);
    count <= FEW ? rmsprop_lists<T, FEW>(parameters, count, step, stream)
                 : rmsprop_lists<T, MANY>(parameters, count, step, stream);
  });
}

}  // namespace wgan_fast
