#include "piecewise_linear.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "instruction_set.h"

namespace wgan_fast {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a word's lowest byte has the first elements");

// The mask is read and written in words as wide as the arithmetic type: compilers vectorise a loop whose types all have
// one width.
template <class T>
using Word = std::conditional_t<sizeof(Accumulate<T>) == 8, uint64_t, uint32_t>;
template <class T>
constexpr int AT_ONCE = 128 / sizeof(Accumulate<T>);  // four vectors of 32 bytes
static_assert(MASK_BLOCK % AT_ONCE<float> == 0 && MASK_BLOCK % AT_ONCE<double> == 0);

}  // namespace

template <class T>
INSTRUCTION_SET_CLONES void piecewise_linear_cpu(const T* input, T* output, uint8_t* mask,
                                                 PiecewiseLinear<Accumulate<T>> f, int64_t begin, int64_t end) {
  const PiecewiseLinear<Accumulate<T>> formula = f;
  int64_t i = begin;
  for (; i + AT_ONCE<T> <= end; i += AT_ONCE<T>) {
    Word<T> bits[AT_ONCE<T>];
#pragma GCC ivdep  // output may alias input, but each iteration accesses one element of each
    for (int k = 0; k < AT_ONCE<T>; ++k) {
      const Accumulate<T> x = widen(input[i + k]);
      bits[k] = is_inside(x, formula) ? Word<T>{1} << k : Word<T>{0};
      output[i + k] = narrow<T>(piecewise_linear(x, formula));
    }
    Word<T> word = 0;
    for (int k = 0; k < AT_ONCE<T>; ++k) word |= bits[k];
    std::memcpy(mask + i / 8, &word, AT_ONCE<T> / 8);
  }
  for (; i < end; ++i) {
    const Accumulate<T> x = widen(input[i]);
    const uint8_t before = i % 8 == 0 ? 0 : mask[i / 8];
    mask[i / 8] = before | is_inside(x, formula) << i % 8;
    output[i] = narrow<T>(piecewise_linear(x, formula));
  }
}

template <class T>
INSTRUCTION_SET_CLONES void apply_mask_cpu(const T* __restrict input, const uint8_t* __restrict mask,
                                           T* __restrict output, Accumulate<T> negative_slope, int64_t begin,
                                           int64_t end) {
  int64_t i = begin;
  for (; i + AT_ONCE<T> <= end; i += AT_ONCE<T>) {
    Word<T> word = 0;
    std::memcpy(&word, mask + i / 8, AT_ONCE<T> / 8);
    for (int k = 0; k < AT_ONCE<T>; ++k) {
      output[i + k] = narrow<T>(apply_mask(widen(input[i + k]), (word >> k & 1) != 0, negative_slope));
    }
  }
  for (; i < end; ++i) {
    output[i] = narrow<T>(apply_mask(widen(input[i]), (mask[i / 8] >> i % 8 & 1) != 0, negative_slope));
  }
}

#define INSTANTIATE(T)                                                                                             \
  template void piecewise_linear_cpu<T>(const T*, T*, uint8_t*, PiecewiseLinear<Accumulate<T>>, int64_t, int64_t); \
  template void apply_mask_cpu<T>(const T*, const uint8_t*, T*, Accumulate<T>, int64_t, int64_t);
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace wgan_fast
