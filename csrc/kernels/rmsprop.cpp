#include "rmsprop.h"

#include "instruction_set.h"

namespace wgan_fast {
namespace {

template <class T>
INSTRUCTION_SET_CLONES void rmsprop_range(T* __restrict weight, const T* __restrict gradient,
                                          T* __restrict square_average, const Rmsprop<T> formula, int64_t begin,
                                          int64_t end) {
  if (formula.weight_decay == 0) {  // without this split, GCC does not vectorise the 16-bit types
    for (int64_t i = begin; i < end; ++i) rmsprop(weight[i], gradient[i], square_average[i], formula);
  } else {
    for (int64_t i = begin; i < end; ++i) rmsprop(weight[i], gradient[i], square_average[i], formula);
  }
}

}  // namespace

void rmsprop_cpu(const Parameter& parameter, const RmspropStep& step, int64_t begin, int64_t end) {
  dispatch_dtype(parameter.dtype, [&](auto element) {
    using T = decltype(element);
    rmsprop_range(static_cast<T*>(parameter.weight), static_cast<const T*>(parameter.gradient),
                  static_cast<T*>(parameter.square_average),
                  step.formula<T>(step.learning_rate.value, step.grad_scale.value), begin, end);
  });
}

}  // namespace wgan_fast
