// Shared by all kernels: launch, 16-byte access, reductions.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "scalar.h"

namespace wgan_fast {

constexpr int BLOCK = 256;  // threads; every kernel is launched with it
constexpr int WARP = 32;
// Blocks that a multiprocessor must hold, so at most 64 registers a thread. Their 1,024 threads with two loads of 16
// bytes each are 32 KiB in flight; an H100 needs 18 KiB (3.35 TB/s for 0.7 us, over 132 multiprocessors).
constexpr int MIN_BLOCKS = 4;

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

// Vectors that a thread loads before it uses the first. Consecutive ones are a warp apart.
constexpr int UNROLL = 4;

// WIDTH consecutive elements in one access: 16 bytes, or fewer for data that is not aligned to 16 bytes.
template <class T, int WIDTH>
struct alignas(sizeof(T) * WIDTH) Vector {
  T at[WIDTH];
};

// A vector between its load and its use. 16-bit elements travel in pairs: by themselves each takes a register.
template <class T, int WIDTH>
class Packed {
  using Word = std::conditional_t<sizeof(T) == 2 && WIDTH % 2 == 0, uint32_t, T>;
  static constexpr int WORDS = static_cast<int>(WIDTH * sizeof(T) / sizeof(Word));

 public:
  Packed() = default;
  __device__ Packed(const Vector<T, WIDTH>& vector) : words_(bit_cast<Vector<Word, WORDS>>(vector)) {}
  __device__ Vector<T, WIDTH> unpack() const { return bit_cast<Vector<T, WIDTH>>(words_); }

 private:
  Vector<Word, WORDS> words_;
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

// How a kernel walks over an array: TOGETHER vectors of WIDTH elements for each thread at a time. Two policies, which
// the host chooses from, so that each kernel is written once.
//
// Every vector is whole, and their number fits into 32 bits.
template <int W, int U>
struct WholeVectors {
  static constexpr int MIN_BLOCKS = wgan_fast::MIN_BLOCKS;
  static constexpr int WIDTH = W;
  static constexpr int TOGETHER = U;
  using Index = uint32_t;
  Index vectors;

  explicit WholeVectors(int64_t count) : vectors(static_cast<Index>(count / W)) {}

  // Indices may exceed the number of vectors by less than a grid.
  static bool covers(int64_t count) { return count % W == 0 && count / W < int64_t{1} << 31; }

  __device__ int64_t count() const { return int64_t{vectors} * W; }
  __device__ bool has(int64_t /*element*/) const { return true; }

  // Vector i of an array.
  template <int N, class T>
  __device__ static Vector<T, N> load(const T* array, int64_t i, int64_t /*count*/) {
    return load_whole<N>(array, i * N);
  }
  template <int N, class T>
  __device__ static void store(T* array, int64_t i, int64_t /*count*/, Vector<T, N> vector) {
    store_whole(array, i * N, vector);
  }
};

// The last vector may be partial. Indices have 64 bits.
template <int W, int U>
struct AnyVectors {
  static constexpr int MIN_BLOCKS = 2;  // partial vectors take more registers
  static constexpr int WIDTH = W;
  static constexpr int TOGETHER = U;
  using Index = int64_t;
  Index vectors;
  int64_t elements;

  explicit AnyVectors(int64_t count) : vectors((count + W - 1) / W), elements(count) {}

  __device__ int64_t count() const { return elements; }
  __device__ bool has(int64_t element) const { return element < elements; }

  template <int N, class T>
  __device__ static Vector<T, N> load(const T* array, int64_t i, int64_t count) {
    return wgan_fast::load<N>(array, i * N, count);
  }
  template <int N, class T>
  __device__ static void store(T* array, int64_t i, int64_t count, Vector<T, N> vector) {
    wgan_fast::store<N>(array, i * N, count, vector);
  }
};

template <class Vectors>
constexpr int TILE = BLOCK * Vectors::TOGETHER;  // vectors that a block processes at a time

template <class Vectors>
int64_t blocks_for_vectors(const Vectors& walk) {
  return blocks_for((int64_t{walk.vectors} + Vectors::TOGETHER - 1) / Vectors::TOGETHER);
}

// Calls f(first) for the tiles of this block, `first` being the tile's first vector: the same calls in every thread of
// the block.
template <class Vectors, class F>
__device__ inline void for_each_tile(const Vectors& walk, F f) {
  using Index = typename Vectors::Index;
  for (Index first = blockIdx.x * Index{TILE<Vectors>}; first < walk.vectors;
       first += gridDim.x * Index{TILE<Vectors>}) {
    f(first);
  }
}

// This thread's first vector of the tile.
template <class Vectors, class Index = typename Vectors::Index>
__device__ inline Index first_of_thread(Index tile) {
  return tile + threadIdx.x / WARP * (WARP * Vectors::TOGETHER) + threadIdx.x % WARP;
}

// Calls f(u, i) for this thread's vectors of the tile. The index is widened before a multiple of WARP is added, so that
// all vectors have one address and constant offsets.
template <class Vectors, class F>
__device__ inline void for_each_vector(const Vectors& walk, typename Vectors::Index tile, F f) {
  const auto first = first_of_thread<Vectors>(tile);
  UNROLL_LOOP
  for (int u = 0; u < Vectors::TOGETHER; ++u) {
    if (first + u * WARP < walk.vectors) f(u, int64_t{first} + u * WARP);
  }
}

// Quotients of numbers below 2^31 by a number that the host knows: a product instead of a division.
class Divisor {
 public:
  explicit Divisor(uint32_t divisor) {
    while (uint64_t{1} << shift_ < divisor) ++shift_;
    factor_ = static_cast<uint32_t>((((uint64_t{1} << shift_) - divisor) << 32) / divisor + 1);
  }
  HOST_DEVICE uint32_t quotient(uint32_t number) const {
    return (static_cast<uint32_t>(uint64_t{number} * factor_ >> 32) + number) >> shift_;
  }

 private:
  uint32_t factor_, shift_ = 0;
};

// A batch of rows of whole vectors: one value of its row for each vector.
template <int W>
struct WholeRows : WholeVectors<W, UNROLL> {
  Divisor per_row;

  WholeRows(int64_t rows, int64_t length)
      : WholeVectors<W, UNROLL>(rows * length), per_row(static_cast<uint32_t>(length / W)) {}

  static bool covers(int64_t rows, int64_t length) {
    return length % W == 0 && WholeVectors<W, UNROLL>::covers(rows * length);
  }

  static constexpr int ROWS_OF_TILE = TILE<WholeVectors<W, UNROLL>>;  // at most
  __device__ uint32_t first_row(int64_t i) const { return per_row.quotient(static_cast<uint32_t>(i)); }
  __device__ uint32_t last_row(int64_t i) const { return first_row(i); }

  template <class A>
  struct RowValues {
    A value;
    __device__ A operator[](int /*k*/) const { return value; }
  };
  // The values of_row(row) for the elements of vector i.
  template <class A, class OfRow>
  __device__ RowValues<A> row_values(int64_t i, OfRow of_row) const {
    return {of_row(first_row(i))};
  }
};

// A batch of any rows: a row may begin anywhere in a vector. It takes one division per vector and one call of `of_row`
// per row.
template <int W>
struct AnyRows : AnyVectors<W, 1> {
  int64_t length;

  AnyRows(int64_t rows, int64_t length) : AnyVectors<W, 1>(rows * length), length(length) {}

  static constexpr int ROWS_OF_TILE = BLOCK * W;  // at most
  __device__ int64_t first_row(int64_t i) const { return i * W / length; }
  __device__ int64_t last_row(int64_t i) const {
    const int64_t end = (i + 1) * W;
    return ((end < this->elements ? end : this->elements) - 1) / length;
  }

  template <class A>
  struct RowValues {
    A values[W];
    __device__ A operator[](int k) const { return values[k]; }
  };
  template <class A, class OfRow>
  __device__ RowValues<A> row_values(int64_t i, OfRow of_row) const {
    RowValues<A> result{};
    int64_t row = first_row(i);
    int64_t left = (row + 1) * length - i * W;  // elements of the row from here
    A value = of_row(row);
    for (int k = 0; k < W; ++k, --left) {
      if (left == 0 && this->has(i * W + k)) {
        left = length;
        value = of_row(++row);
      }
      result.values[k] = value;
    }
    return result;
  }
};

// Calls f(rows) with the policy for a batch whose arrays are, or are not, all aligned to 16 bytes.
template <class T, class F>
void with_rows(bool aligned, int64_t rows, int64_t length, F f) {
  constexpr int W = FULL_WIDTH<T>;
  if (aligned && WholeRows<W>::covers(rows, length)) return f(WholeRows<W>(rows, length));
  if (aligned) return f(AnyRows<W>(rows, length));
  f(AnyRows<1>(rows, length));
}

// Calls f(vectors) with the policy for arrays with a mask of one bit for each element. Threads access it in units of
// UNROLL vectors' bits, and single elements in units of 8.
template <class T, class F>
void with_masked_vectors(bool aligned, int64_t count, F f) {
  constexpr int W = FULL_WIDTH<T>;
  using Whole = WholeVectors<W, UNROLL>;
  if (aligned && count % (W * UNROLL) == 0 && Whole::covers(count)) return f(Whole(count));
  if (aligned) return f(AnyVectors<W, UNROLL>(count));
  f(AnyVectors<1, 8>(count));
}

// GROUP neighbouring threads hold GROUP fields of BITS bits each. Afterwards thread l of the group holds field l of
// every one of them, the first thread's lowest. Every thread of the warp must call it.
template <int GROUP, int BITS>
__device__ inline uint32_t transpose_fields(uint32_t fields) {
  for (int distance = GROUP / 2; distance > 0; distance /= 2) {
    uint32_t low = 0;  // the fields whose number lacks the bit `distance`
    for (int field = 0; field < GROUP; ++field) {
      if ((field & distance) == 0) low |= ((1u << BITS) - 1) << (field * BITS);
    }
    const int shift = distance * BITS;
    const uint32_t other = __shfl_xor_sync(0xffffffffu, fields, distance);
    fields = (threadIdx.x & distance) == 0 ? (fields & low) | (other & low) << shift
                                           : (fields & low << shift) | (other >> shift & low);
  }
  return fields;
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
