// Shared by all kernels: launch, 16-byte access, reductions.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "scalar.h"

namespace wgan_fast {

constexpr int BLOCK = 256;  // threads; every kernel is launched with it
constexpr int WARP = 32;

// Upper bound of a grid: several waves of the largest GPU. Kernels use grid-stride loops. Tests lower the bound, so
// that small inputs take several iterations.
#ifndef WGAN_FAST_MAX_BLOCKS
#define WGAN_FAST_MAX_BLOCKS 16384
#endif
constexpr int64_t MAX_BLOCKS = WGAN_FAST_MAX_BLOCKS;

// Number of blocks for `threads` threads, at most MAX_BLOCKS.
inline int64_t blocks_for(int64_t threads) { return std::min((threads + BLOCK - 1) / BLOCK, MAX_BLOCKS); }

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, cudaStream_t stream, Arguments... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(BLOCK);
  config.stream = stream;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA kernel launch: ") + cudaGetErrorString(error));
}

// Independent vector loads that a thread issues before it uses the first. Consecutive ones are a block apart.
constexpr int UNROLL = 4;
constexpr int64_t TILE = BLOCK * UNROLL;  // vectors that a block processes per iteration

__device__ inline int64_t thread_index() { return int64_t{blockIdx.x} * BLOCK + threadIdx.x; }
__device__ inline int64_t thread_count() { return int64_t{gridDim.x} * BLOCK; }

// WIDTH consecutive elements in one access: 16 bytes, or fewer for data that is not aligned to 16 bytes.
template <class T, int WIDTH>
struct alignas(sizeof(T) * WIDTH) Vector {
  T at[WIDTH];
};

template <class T>
constexpr int FULL_WIDTH = 16 / static_cast<int>(sizeof(T));

template <class T>
HOST_DEVICE bool aligned(const T* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

template <int WIDTH, class T>
__device__ inline Vector<T, WIDTH> load_whole(const T* array, int64_t i) {
  return *reinterpret_cast<const Vector<T, WIDTH>*>(array + i);
}

template <int WIDTH, class T>
__device__ inline void store_whole(T* array, int64_t i, Vector<T, WIDTH> vector) {
  *reinterpret_cast<Vector<T, WIDTH>*>(array + i) = vector;
}

// Elements [i, i + WIDTH) of an array of `count`; nothing beyond its end is accessed. Loops over a vector have a fixed
// length with the condition inside, so that they unroll and the vector stays in registers.
template <int WIDTH, class T>
__device__ inline Vector<T, WIDTH> load(const T* array, int64_t i, int64_t count) {
  if (i + WIDTH <= count) return load_whole<WIDTH>(array, i);
  Vector<T, WIDTH> vector{};
  for (int k = 0; k < WIDTH; ++k) {
    if (i + k < count) vector.at[k] = array[i + k];
  }
  return vector;
}

template <int WIDTH, class T>
__device__ inline void store(T* array, int64_t i, int64_t count, Vector<T, WIDTH> vector) {
  if (i + WIDTH <= count) {
    store_whole(array, i, vector);
  } else {
    for (int k = 0; k < WIDTH; ++k) {
      if (i + k < count) array[i + k] = vector.at[k];
    }
  }
}

// A per-row value for element i and, after advance(), for the following elements. It takes one division per vector and
// one call of `of_row` per row.
template <class OfRow>
struct RowValue {
  int64_t length;
  int64_t rows;
  OfRow of_row;
  int64_t row;
  int64_t column;
  decltype(std::declval<OfRow>()(int64_t{})) value;

  __device__ RowValue(int64_t i, int64_t length, int64_t rows, OfRow of_row)
      : length(length), rows(rows), of_row(of_row), row(i / length), column(i - row * length), value(of_row(row)) {}

  __device__ void advance() {
    if (++column < length) return;
    column = 0;
    if (++row < rows) value = of_row(row);
  }
};

// Iterates over the vectors of a batch whose rows consist of whole vectors: for UNROLL vectors calls `load(u, i, row)`,
// then for the same vectors `store(u, i)`. Indices have 32 bits, because a 32-bit division is cheap.
template <class Load, class Store>
__device__ inline void for_each_whole_vector(uint32_t vectors, uint32_t per_row, Load load, Store store) {
  for (uint32_t first = blockIdx.x * static_cast<uint32_t>(TILE) + threadIdx.x; first < vectors;
       first += gridDim.x * static_cast<uint32_t>(TILE)) {
    for (int u = 0; u < UNROLL; ++u) {
      const uint32_t i = first + u * BLOCK;
      if (i < vectors) load(u, i, i / per_row);
    }
    for (int u = 0; u < UNROLL; ++u) {
      const uint32_t i = first + u * BLOCK;
      if (i < vectors) store(u, i);
    }
  }
}

// Whether for_each_whole_vector applies. The limit of 2^31 vectors leaves room for indices, which may exceed the number
// of vectors by less than a grid.
inline bool has_whole_vectors(int64_t rows, int64_t length, int width) {
  return length % width == 0 && rows * (length / width) < int64_t{1} << 31;
}

// Sum over each group of LANES consecutive threads (a power of two up to a warp), returned to every thread.
template <int LANES, class A>
__device__ inline A group_sum(A value) {
  for (int offset = LANES / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// Sum over the block, returned to each thread. Every thread must call it.
template <class A>
__device__ inline A block_sum(A value) {
  __shared__ A warp_sums[BLOCK / WARP];
  value = group_sum<WARP>(value);
  __syncthreads();  // every thread has read the sums of the previous call
  if (threadIdx.x % WARP == 0) warp_sums[threadIdx.x / WARP] = value;
  __syncthreads();
  A total = 0;
  for (int warp = 0; warp < BLOCK / WARP; ++warp) total += warp_sums[warp];
  return total;
}

}  // namespace wgan_fast
