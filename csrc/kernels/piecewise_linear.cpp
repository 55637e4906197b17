#include "piecewise_linear.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "instruction_set.h"

namespace wgan_fast {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first element has the lowest bit");

// Gates are taken in words as wide as the arithmetic's numbers: compilers vectorise a loop whose types are all of one
// width, on any instruction set.
template <class T>
using Word = std::conditional_t<sizeof(Accumulate<T>) == 8, uint64_t, uint32_t>;
template <class T>
constexpr int AT_ONCE = 128 / sizeof(Accumulate<T>);  // four vectors of 32 bytes
static_assert(GATES % AT_ONCE<float> == 0 && GATES % AT_ONCE<double> == 0);

}  // namespace

template <class T>
INSTRUCTION_SET_CLONES void piecewise_linear_cpu(const T* input, T* output, uint8_t* gates,
                                                 PiecewiseLinear<Accumulate<T>> f, int64_t begin, int64_t end) {
  const PiecewiseLinear<Accumulate<T>> formula = f;
  int64_t i = begin;
  for (; i + AT_ONCE<T> <= end; i += AT_ONCE<T>) {
    Word<T> open[AT_ONCE<T>];
#pragma GCC ivdep  // output may be input, but then it is the same element
    for (int k = 0; k < AT_ONCE<T>; ++k) {
      const Accumulate<T> x = widen(input[i + k]);
      open[k] = is_open(x, formula) ? Word<T>{1} << k : Word<T>{0};
      output[i + k] = narrow<T>(piecewise_linear(x, formula));
    }
    Word<T> word = 0;
    for (int k = 0; k < AT_ONCE<T>; ++k) word |= open[k];
    std::memcpy(gates + i / 8, &word, AT_ONCE<T> / 8);
  }
  for (; i < end; ++i) {
    const Accumulate<T> x = widen(input[i]);
    const uint8_t before = i % 8 == 0 ? 0 : gates[i / 8];
    gates[i / 8] = before | is_open(x, formula) << i % 8;
    output[i] = narrow<T>(piecewise_linear(x, formula));
  }
}

template <class T>
INSTRUCTION_SET_CLONES void gate_cpu(const T* __restrict input, const uint8_t* __restrict gates, T* __restrict output,
                                     Accumulate<T> closed_slope, int64_t begin, int64_t end) {
  int64_t i = begin;
  for (; i + AT_ONCE<T> <= end; i += AT_ONCE<T>) {
    Word<T> word = 0;
    std::memcpy(&word, gates + i / 8, AT_ONCE<T> / 8);
    for (int k = 0; k < AT_ONCE<T>; ++k) {
      output[i + k] = narrow<T>(gate(widen(input[i + k]), (word >> k & 1) != 0, closed_slope));
    }
  }
  for (; i < end; ++i) {
    output[i] = narrow<T>(gate(widen(input[i]), (gates[i / 8] >> i % 8 & 1) != 0, closed_slope));
  }
}

#define INSTANTIATE(T)                                                                                             \
  template void piecewise_linear_cpu<T>(const T*, T*, uint8_t*, PiecewiseLinear<Accumulate<T>>, int64_t, int64_t); \
  template void gate_cpu<T>(const T*, const uint8_t*, T*, Accumulate<T>, int64_t, int64_t);
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace wgan_fast
