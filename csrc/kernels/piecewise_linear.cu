#include "launch.cuh"
#include "piecewise_linear.h"

namespace wgan_fast {
namespace {

// Each thread computes eight consecutive elements, whose mask is one byte, so no two threads write to one byte.
template <int WIDTH, class T>
__global__ void __launch_bounds__(BLOCK)
    piecewise_linear_kernel(const T* input, T* output, uint8_t* mask, PiecewiseLinear<Accumulate<T>> f, int64_t count) {
  for (int64_t byte = thread_index(); byte * 8 < count; byte += thread_count()) {
    unsigned bits = 0;
    for (int first = 0; first < 8; first += WIDTH) {
      const int64_t i = byte * 8 + first;
      const auto x = load<WIDTH>(input, i, count);
      Vector<T, WIDTH> y{};
      for (int k = 0; k < WIDTH; ++k) {
        const Accumulate<T> value = widen(x.at[k]);
        y.at[k] = narrow<T>(piecewise_linear(value, f));
        if (i + k < count && is_inside(value, f)) bits |= 1u << (first + k);
      }
      store<WIDTH>(output, i, count, y);
    }
    mask[byte] = static_cast<uint8_t>(bits);
  }
}

template <int WIDTH, class T>
__global__ void __launch_bounds__(BLOCK)
    apply_mask_kernel(const T* input, const uint8_t* mask, T* output, Accumulate<T> negative_slope, int64_t count) {
  for (int64_t byte = thread_index(); byte * 8 < count; byte += thread_count()) {
    const unsigned bits = mask[byte];
    for (int first = 0; first < 8; first += WIDTH) {
      const int64_t i = byte * 8 + first;
      const auto x = load<WIDTH>(input, i, count);
      Vector<T, WIDTH> y{};
      for (int k = 0; k < WIDTH; ++k) {
        y.at[k] = narrow<T>(apply_mask(widen(x.at[k]), (bits >> (first + k) & 1u) != 0, negative_slope));
      }
      store<WIDTH>(output, i, count, y);
    }
  }
}

}  // namespace

template <class T>
void piecewise_linear_cuda(const T* input, T* output, uint8_t* mask, PiecewiseLinear<Accumulate<T>> f, int64_t count,
                           cudaStream_t stream) {
  const bool vectors = aligned(input) && aligned(output);
  launch(vectors ? piecewise_linear_kernel<FULL_WIDTH<T>, T> : piecewise_linear_kernel<1, T>,
         blocks_for(mask_bytes(count)), stream, input, output, mask, f, count);
}

template <class T>
void apply_mask_cuda(const T* input, const uint8_t* mask, T* output, Accumulate<T> negative_slope, int64_t count,
                     cudaStream_t stream) {
  const bool vectors = aligned(input) && aligned(output);
  launch(vectors ? apply_mask_kernel<FULL_WIDTH<T>, T> : apply_mask_kernel<1, T>, blocks_for(mask_bytes(count)), stream,
         input, mask, output, negative_slope, count);
}

#define INSTANTIATE(T)                                                                                    \
  template void piecewise_linear_cuda<T>(const T*, T*, uint8_t*, PiecewiseLinear<Accumulate<T>>, int64_t, \
                                         cudaStream_t);                                                   \
  template void apply_mask_cuda<T>(const T*, const uint8_t*, T*, Accumulate<T>, int64_t, cudaStream_t);
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace wgan_fast
