#include "smooth_activation.h"

#include <algorithm>
#include <type_traits>

#include "instruction_set.h"

#define INLINE __attribute__((always_inline))  // to be compiled for the caller's instruction set

namespace wgan_fast {
namespace {

template <class A>
INLINE inline void values_of(const A* x, A* y, const SmoothActivation& f, int64_t count) {
  dispatch_kind<A>(f, [&](auto formula) INLINE {
#pragma GCC ivdep  // y may alias x, but each iteration accesses one element of each
    for (int64_t i = 0; i < count; ++i) y[i] = formula.value(x[i]);
  });
}

template <int K, class A>
INLINE inline void backward_of(const A* grad, const A* z, A* out, const SmoothActivation& f, int64_t count) {
  dispatch_kind<A>(f, [&](auto formula) INLINE {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) out[i] = grad[i] * formula.template slope<K>(z[i]);
  });
}

template <class A>
INLINE inline void double_backward_of(const A* grad_grad, const A* grad, const A* z, A* grad_out, A* z_out,
                                      const SmoothActivation& f, int64_t count) {
  dispatch_kind<A>(f, [&](auto formula) INLINE {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      const A u = grad_grad[i], ug = u * grad[i];
      grad_out[i] = u * formula.template slope<0>(z[i]);
      z_out[i] = ug * formula.template slope<1>(z[i]);
    }
  });
}

}  // namespace

// Several instruction sets for float32 alone: float64 calls the standard library for each element.
#define FOR_BOTH_TYPES(NAME, PARAMETERS, BODY)                 \
  INSTRUCTION_SET_CLONES void NAME(PARAMETERS(float)) { BODY } \
  void NAME(PARAMETERS(double)) { BODY }

#define VALUES(A) const A *x, A *y, SmoothActivation f, int64_t count
#define BACKWARD(A) const A *grad, const A *z, A *out, SmoothActivation f, int64_t count
#define DOUBLE_BACKWARD(A) \
  const A *grad_grad, const A *grad, const A *z, A *grad_out, A *z_out, SmoothActivation f, int64_t count

namespace smooth {
FOR_BOTH_TYPES(values, VALUES, values_of(x, y, f, count);)
FOR_BOTH_TYPES(backward_0, BACKWARD, backward_of<0>(grad, z, out, f, count);)
FOR_BOTH_TYPES(backward_1, BACKWARD, backward_of<1>(grad, z, out, f, count);)
FOR_BOTH_TYPES(backward_2, BACKWARD, backward_of<2>(grad, z, out, f, count);)
FOR_BOTH_TYPES(double_backward, DOUBLE_BACKWARD, double_backward_of(grad_grad, grad, z, grad_out, z_out, f, count);)

template <class T>
INSTRUCTION_SET_CLONES void widen_all(const T* __restrict from, float* __restrict to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = widen(from[i]);
}
template <class T>
INSTRUCTION_SET_CLONES void narrow_all(const float* __restrict from, T* __restrict to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = narrow<T>(from[i]);
}
template void widen_all<Half>(const Half*, float*, int64_t);
template void widen_all<BFloat16>(const BFloat16*, float*, int64_t);
template void narrow_all<Half>(const float*, Half*, int64_t);
template void narrow_all<BFloat16>(const float*, BFloat16*, int64_t);
}  // namespace smooth

namespace {

// 16-bit numbers are converted in blocks that stay in the cache: one compiled formula serves all types.
constexpr int64_t BLOCK = 512;

template <class T>
constexpr bool is_stored_wide = std::is_same_v<T, Accumulate<T>>;

template <class T>
class Wide {
 public:
  Wide(const T* from, int64_t count) { smooth::widen_all(from, numbers_, count); }
  operator const float*() const { return numbers_; }

 private:
  float numbers_[BLOCK];
};

template <class T, class Use>
void for_each_block(int64_t begin, int64_t end, Use&& use) {
  for (int64_t i = begin; i < end; i += BLOCK) use(i, std::min(BLOCK, end - i));
}

}  // namespace

template <class T>
void smooth_activation_cpu(const T* x, T* y, SmoothActivation f, int64_t begin, int64_t end) {
  if constexpr (is_stored_wide<T>) {
    smooth::values(x + begin, y + begin, f, end - begin);
  } else {
    for_each_block<T>(begin, end, [&](int64_t i, int64_t count) {
      float out[BLOCK];
      smooth::values(Wide<T>(x + i, count), out, f, count);
      smooth::narrow_all(out, y + i, count);
    });
  }
}

template <class T>
void smooth_activation_backward_cpu(const T* grad, const T* z, T* out, SmoothActivation f, int order, int64_t begin,
                                    int64_t end) {
  using A = Accumulate<T>;
  void (*const kernels[SMOOTH_ORDERS])(const A*, const A*, A*, SmoothActivation, int64_t) = {
      smooth::backward_0, smooth::backward_1, smooth::backward_2};
  if constexpr (is_stored_wide<T>) {
    kernels[order](grad + begin, z + begin, out + begin, f, end - begin);
  } else {
    for_each_block<T>(begin, end, [&](int64_t i, int64_t count) {
      float wide[BLOCK];
      kernels[order](Wide<T>(grad + i, count), Wide<T>(z + i, count), wide, f, count);
      smooth::narrow_all(wide, out + i, count);
    });
  }
}

template <class T>
void smooth_activation_double_backward_cpu(const T* grad_grad, const T* grad, const T* z, T* grad_out, T* z_out,
                                           SmoothActivation f, int64_t begin, int64_t end) {
  if constexpr (is_stored_wide<T>) {
    smooth::double_backward(grad_grad + begin, grad + begin, z + begin, grad_out + begin, z_out + begin, f,
                            end - begin);
  } else {
    for_each_block<T>(begin, end, [&](int64_t i, int64_t count) {
      float wide_grad[BLOCK], wide_z[BLOCK];
      smooth::double_backward(Wide<T>(grad_grad + i, count), Wide<T>(grad + i, count), Wide<T>(z + i, count), wide_grad,
                              wide_z, f, count);
      smooth::narrow_all(wide_grad, grad_out + i, count);
      smooth::narrow_all(wide_z, z_out + i, count);
    });
  }
}

#define INSTANTIATE(T)                                                                                              \
  template void smooth_activation_cpu<T>(const T*, T*, SmoothActivation, int64_t, int64_t);                         \
  template void smooth_activation_backward_cpu<T>(const T*, const T*, T*, SmoothActivation, int, int64_t, int64_t); \
  template void smooth_activation_double_backward_cpu<T>(const T*, const T*, const T*, T*, T*, SmoothActivation,    \
                                                         int64_t, int64_t);
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace wgan_fast
