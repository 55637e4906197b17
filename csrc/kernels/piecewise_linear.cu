#include "launch.cuh"
#include "piecewise_linear.h"

namespace wgan_fast {
namespace {

// Adjacent threads process adjacent vectors, so that a warp accesses whole sectors. A group of GROUP threads holds
// eight elements and combines their bits into one byte of the mask.
template <int WIDTH>
constexpr int GROUP = 8 / WIDTH;

template <int WIDTH, class T>
__global__ void __launch_bounds__(BLOCK)
    piecewise_linear_kernel(const T* input, T* output, uint8_t* mask, PiecewiseLinear<Accumulate<T>> f, int64_t count) {
  const int shift = static_cast<int>(threadIdx.x % GROUP<WIDTH>) * WIDTH;
  // The loop's bound is uniform in the block, because every thread must take part in the exchange of bits.
  for (int64_t tile = blockIdx.x * TILE * WIDTH; tile < count; tile += gridDim.x * TILE * WIDTH) {
    Vector<T, WIDTH> x[UNROLL];
    const int64_t first = tile + threadIdx.x * WIDTH;
    for (int u = 0; u < UNROLL; ++u) x[u] = load<WIDTH>(input, first + u * BLOCK * WIDTH, count);
    for (int u = 0; u < UNROLL; ++u) {
      const int64_t i = first + u * BLOCK * WIDTH;
      Vector<T, WIDTH> y{};
      unsigned bits = 0;
      for (int k = 0; k < WIDTH; ++k) {
        const Accumulate<T> value = widen(x[u].at[k]);
        y.at[k] = narrow<T>(piecewise_linear(value, f));
        if (i + k < count && is_inside(value, f)) bits |= 1u << (shift + k);
      }
      store<WIDTH>(output, i, count, y);
      for (int offset = GROUP<WIDTH> / 2; offset > 0; offset /= 2) bits |= __shfl_xor_sync(0xffffffffu, bits, offset);
      if (shift == 0 && i < count) mask[i / 8] = static_cast<uint8_t>(bits);
    }
  }
}

template <int WIDTH, class T>
__global__ void __launch_bounds__(BLOCK)
    apply_mask_kernel(const T* input, const uint8_t* mask, T* output, Accumulate<T> negative_slope, int64_t count) {
  const int shift = static_cast<int>(threadIdx.x % GROUP<WIDTH>) * WIDTH;
  for (int64_t first = (blockIdx.x * TILE + threadIdx.x) * WIDTH; first < count; first += gridDim.x * TILE * WIDTH) {
    Vector<T, WIDTH> x[UNROLL];
    unsigned bits[UNROLL];
    for (int u = 0; u < UNROLL; ++u) {
      const int64_t i = first + u * BLOCK * WIDTH;
      x[u] = load<WIDTH>(input, i, count);
      bits[u] = i < count ? mask[i / 8] >> shift : 0;
    }
    for (int u = 0; u < UNROLL; ++u) {
      Vector<T, WIDTH> y{};
      for (int k = 0; k < WIDTH; ++k) {
        y.at[k] = narrow<T>(apply_mask(widen(x[u].at[k]), (bits[u] >> k & 1u) != 0, negative_slope));
      }
      store<WIDTH>(output, first + u * BLOCK * WIDTH, count, y);
    }
  }
}

// Number of blocks for `count` elements.
template <int WIDTH>
int64_t tiles(int64_t count) {
  return blocks_for((count + UNROLL * WIDTH - 1) / (UNROLL * WIDTH));
}

}  // namespace

template <class T>
void piecewise_linear_cuda(const T* input, T* output, uint8_t* mask, PiecewiseLinear<Accumulate<T>> f, int64_t count,
                           cudaStream_t stream) {
  if (aligned(input) && aligned(output)) {
    launch(piecewise_linear_kernel<FULL_WIDTH<T>, T>, tiles<FULL_WIDTH<T>>(count), stream, input, output, mask, f,
           count);
  } else {
    launch(piecewise_linear_kernel<1, T>, tiles<1>(count), stream, input, output, mask, f, count);
  }
}

template <class T>
void apply_mask_cuda(const T* input, const uint8_t* mask, T* output, Accumulate<T> negative_slope, int64_t count,
                     cudaStream_t stream) {
  if (aligned(input) && aligned(output)) {
    launch(apply_mask_kernel<FULL_WIDTH<T>, T>, tiles<FULL_WIDTH<T>>(count), stream, input, mask, output,
           negative_slope, count);
  } else {
    launch(apply_mask_kernel<1, T>, tiles<1>(count), stream, input, mask, output, negative_slope, count);
  }
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
