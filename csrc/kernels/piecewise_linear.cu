#include "launch.cuh"
#include "piecewise_linear.h"

namespace wgan_fast {
namespace {

// A thread has GROUP vectors, a warp apart, and their bits of the mask. GROUP neighbours exchange these, so that each
// has the bits of GROUP adjacent vectors: a warp then accesses its part of the mask, 32 bytes or a multiple, at once.
template <class Vectors>
struct Mask {
  static constexpr int WIDTH = Vectors::WIDTH;
  static constexpr int GROUP = Vectors::TOGETHER;
  static constexpr int BYTES = GROUP * WIDTH / 8;  // of one thread
  static_assert(GROUP * WIDTH % 8 == 0 && BYTES <= 4);
  using Bytes = Vector<uint8_t, BYTES>;

  int64_t i;  // of this thread's part, in units of BYTES
  bool exists;

  __device__ Mask(const Vectors& vectors, typename Vectors::Index tile) {
    const int lane = static_cast<int>(threadIdx.x) % WARP;
    const auto first = first_of_thread<Vectors>(tile) - lane;  // of the warp
    i = int64_t{first} / GROUP + lane % GROUP * (WARP / GROUP) + lane / GROUP;
    exists = i * GROUP < vectors.vectors;
  }

  // Vector u of the thread has the bits from u * WIDTH on.
  __device__ uint32_t load(const Vectors& vectors, const uint8_t* mask) const {
    uint32_t bits = 0;
    if (exists) {
      const Bytes bytes = Vectors::template load<BYTES>(mask, i, mask_bytes(vectors.count()));
      memcpy(&bits, &bytes, BYTES);
    }
    return transpose_fields<GROUP, WIDTH>(bits);
  }

  __device__ void store(const Vectors& vectors, uint8_t* mask, uint32_t bits) const {
    bits = transpose_fields<GROUP, WIDTH>(bits);
    Bytes bytes;
    memcpy(&bytes, &bits, BYTES);
    if (exists) Vectors::store(mask, i, mask_bytes(vectors.count()), bytes);
  }
};

template <class Vectors, class T>
__global__ void __launch_bounds__(BLOCK, Vectors::MIN_BLOCKS)
    piecewise_linear_kernel(const T* input, T* output, uint8_t* mask, PiecewiseLinear<Accumulate<T>> f,
                            Vectors vectors) {
  constexpr int WIDTH = Vectors::WIDTH;
  for_each_tile(vectors, [&](auto tile) {
    Packed<T, WIDTH> x[Vectors::TOGETHER];
    uint32_t bits = 0;
    for_each_vector(vectors, tile,
                    [&](int u, int64_t i) { x[u] = Vectors::template load<WIDTH>(input, i, vectors.count()); });
    for_each_vector(vectors, tile, [&](int u, int64_t i) {
      Vector<T, WIDTH> y = x[u].unpack();
      for (int k = 0; k < WIDTH; ++k) {
        const Accumulate<T> value = widen(y.at[k]);
        y.at[k] = narrow<T>(piecewise_linear(value, f));
        if (vectors.has(i * WIDTH + k) && is_inside(value, f)) bits |= 1u << (u * WIDTH + k);
      }
      Vectors::store(output, i, vectors.count(), y);
    });
    Mask<Vectors>(vectors, tile).store(vectors, mask, bits);
  });
}

template <class Vectors, class T>
__global__ void __launch_bounds__(BLOCK, Vectors::MIN_BLOCKS)
    apply_mask_kernel(const T* input, const uint8_t* mask, T* output, Accumulate<T> negative_slope, Vectors vectors) {
  constexpr int WIDTH = Vectors::WIDTH;
  for_each_tile(vectors, [&](auto tile) {
    Packed<T, WIDTH> x[Vectors::TOGETHER];
    for_each_vector(vectors, tile,
                    [&](int u, int64_t i) { x[u] = Vectors::template load<WIDTH>(input, i, vectors.count()); });
    const uint32_t bits = Mask<Vectors>(vectors, tile).load(vectors, mask);
    for_each_vector(vectors, tile, [&](int u, int64_t i) {
      Vector<T, WIDTH> y = x[u].unpack();
      for (int k = 0; k < WIDTH; ++k) {
        const bool inside = (bits >> (u * WIDTH + k) & 1u) != 0;
        y.at[k] = narrow<T>(apply_mask(widen(y.at[k]), inside, negative_slope));
      }
      Vectors::store(output, i, vectors.count(), y);
    });
  });
}

}  // namespace

template <class T>
void piecewise_linear_cuda(const T* input, T* output, uint8_t* mask, PiecewiseLinear<Accumulate<T>> f, int64_t count,
                           cudaStream_t stream) {
  with_masked_vectors<T>(aligned(input) && aligned(output) && aligned(mask), count, [&](auto vectors) {
    launch(piecewise_linear_kernel<decltype(vectors), T>, blocks_for_vectors(vectors), stream, input, output, mask, f,
           vectors);
  });
}

template <class T>
void apply_mask_cuda(const T* input, const uint8_t* mask, T* output, Accumulate<T> negative_slope, int64_t count,
                     cudaStream_t stream) {
  with_masked_vectors<T>(aligned(input) && aligned(output) && aligned(mask), count, [&](auto vectors) {
    launch(apply_mask_kernel<decltype(vectors), T>, blocks_for_vectors(vectors), stream, input, mask, output,
           negative_slope, vectors);
  });
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
