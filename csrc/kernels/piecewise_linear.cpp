#include "piecewise_linear.h"

#include <algorithm>
#include <cstring>

#include "instruction_set.h"

namespace wgan_fast {
namespace {

// Eight bytes, each 0 or 1, to the bits of one, and back to eight bytes, each 0 or not. Inlined, or they would not get
// the caller's instruction set.
__attribute__((always_inline)) inline uint8_t pack(const uint8_t* flags) {
  uint64_t bytes;
  std::memcpy(&bytes, flags, 8);
  return static_cast<uint8_t>(bytes * 0x0102040810204080u >> 56);
}

__attribute__((always_inline)) inline void unpack(uint8_t bits, uint8_t* flags) {
  const uint64_t bytes = bits * 0x0101010101010101u & 0x8040201008040201u;
  std::memcpy(flags, &bytes, 8);
}

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first element has the lowest bit");

}  // namespace

template <class T>
INSTRUCTION_SET_CLONES void piecewise_linear_cpu(const T* input, T* output, uint8_t* gates,
                                                 PiecewiseLinear<Accumulate<T>> f, int64_t begin, int64_t end) {
  const PiecewiseLinear<Accumulate<T>> formula = f;
  int64_t i = begin;
  for (; i + GATES <= end; i += GATES) {
    uint8_t open[GATES];
#pragma GCC ivdep  // output may be input, but then it is the same element
    for (int64_t k = 0; k < GATES; ++k) {
      const Accumulate<T> x = widen(input[i + k]);
      open[k] = is_open(x, formula);
      output[i + k] = narrow<T>(piecewise_linear(x, formula));
    }
    for (int64_t k = 0; k < GATES; k += 8) gates[(i + k) / 8] = pack(open + k);
  }
  for (; i < end; i += 8) {
    uint8_t open[8] = {};
    for (int64_t k = 0; k < std::min<int64_t>(8, end - i); ++k) {
      const Accumulate<T> x = widen(input[i + k]);
      open[k] = is_open(x, formula);
      output[i + k] = narrow<T>(piecewise_linear(x, formula));
    }
    gates[i / 8] = pack(open);
  }
}

template <class T>
INSTRUCTION_SET_CLONES void gate_cpu(const T* __restrict input, const uint8_t* __restrict gates, T* __restrict output,
                                     Accumulate<T> closed_slope, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += GATES) {
    uint8_t open[GATES];
    const int64_t count = std::min(GATES, end - i);
    for (int64_t k = 0; k < count; k += 8) unpack(gates[(i + k) / 8], open + k);
    if (count == GATES) {
      for (int64_t k = 0; k < GATES; ++k)
        output[i + k] = narrow<T>(gate(widen(input[i + k]), open[k] != 0, closed_slope));
    } else {
      for (int64_t k = 0; k < count; ++k)
        output[i + k] = narrow<T>(gate(widen(input[i + k]), open[k] != 0, closed_slope));
    }
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
