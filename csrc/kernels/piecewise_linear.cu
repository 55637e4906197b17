#include "launch.cuh"
#include "piecewise_linear.h"

namespace wgan_fast {
namespace {

// A thread does eight neighbouring elements: their gates are one byte, so no thread waits for another.
template <int WIDTH, class T>
__global__ void __launch_bounds__(BLOCK) piecewise_linear_kernel(const T* input, T* output, uint8_t* gates,
                                                                 PiecewiseLinear<Accumulate<T>> f, int64_t count) {
  for (int64_t byte = thread_index(); byte * 8 < count; byte += thread_count()) {
    unsigned open = 0;
    for (int first = 0; first < 8; first += WIDTH) {
      const int64_t i = byte * 8 + first;
      const auto x = load<WIDTH>(input, i, count);
      Vector<T, WIDTH> y{};
      for (int k = 0; k < WIDTH; ++k) {
        const Accumulate<T> value = widen(x.at[k]);
        y.at[k] = narrow<T>(piecewise_linear(value, f));
        if (i + k < count && is_open(value, f)) open |= 1u << (first + k);
      }
      store<WIDTH>(output, i, count, y);
    }
    gates[byte] = static_cast<uint8_t>(open);
  }
}

template <int WIDTH, class T>
__global__ void __launch_bounds__(BLOCK)
    gate_kernel(const T* input, const uint8_t* gates, T* output, Accumulate<T> closed_slope, int64_t count) {
  for (int64_t byte = thread_index(); byte * 8 < count; byte += thread_count()) {
    const unsigned open = gates[byte];
    for (int first = 0; first < 8; first += WIDTH) {
      const int64_t i = byte * 8 + first;
      const auto x = load<WIDTH>(input, i, count);
      Vector<T, WIDTH> y{};
      for (int k = 0; k < WIDTH; ++k) {
        y.at[k] = narrow<T>(gate(widen(x.at[k]), (open >> (first + k) & 1u) != 0, closed_slope));
      }
      store<WIDTH>(output, i, count, y);
    }
  }
}

}  // namespace

template <class T>
void piecewise_linear_cuda(const T* input, T* output, uint8_t* gates, PiecewiseLinear<Accumulate<T>> f, int64_t count,
                           cudaStream_t stream) {
  const bool vectors = aligned(input) && aligned(output);
  launch(vectors ? piecewise_linear_kernel<FULL_WIDTH<T>, T> : piecewise_linear_kernel<1, T>,
         blocks_for(gate_bytes(count)), stream, input, output, gates, f, count);
}

template <class T>
void gate_cuda(const T* input, const uint8_t* gates, T* output, Accumulate<T> closed_slope, int64_t count,
               cudaStream_t stream) {
  const bool vectors = aligned(input) && aligned(output);
  launch(vectors ? gate_kernel<FULL_WIDTH<T>, T> : gate_kernel<1, T>, blocks_for(gate_bytes(count)), stream, input,
         gates, output, closed_slope, count);
}

#define INSTANTIATE(T)                                                                                    \
  template void piecewise_linear_cuda<T>(const T*, T*, uint8_t*, PiecewiseLinear<Accumulate<T>>, int64_t, \
                                         cudaStream_t);                                                   \
  template void gate_cuda<T>(const T*, const uint8_t*, T*, Accumulate<T>, int64_t, cudaStream_t);
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace wgan_fast
