#include <algorithm>
#include <cmath>
#include <type_traits>

#include "gradient_norm_penalty.h"
#include "launch.cuh"

namespace wgan_fast {
namespace {

// Tests lower both, so that small batches take every path.
#ifndef WGAN_FAST_MIN_SEGMENT
#define WGAN_FAST_MIN_SEGMENT 4096
#endif
#ifndef WGAN_FAST_MAX_ROW_BLOCKS
#define WGAN_FAST_MAX_ROW_BLOCKS 1024
#endif
constexpr int64_t MIN_SEGMENT = WGAN_FAST_MIN_SEGMENT;        // elements: four vectors or more for each thread
constexpr int64_t MAX_ROW_BLOCKS = WGAN_FAST_MAX_ROW_BLOCKS;  // enough to fill any GPU, few enough for one block to sum

template <int WIDTH, class T>
__device__ Accumulate<T> sum_of_squares(const Vector<T, WIDTH>& vector) {
  Accumulate<T> sum = 0;
  for (int k = 0; k < WIDTH; ++k) sum += widen(vector.at[k]) * widen(vector.at[k]);
  return sum;
}

// Sum of squares of `values`, whole vectors, computed by LANES threads together and returned to each of them.
template <int LANES, int WIDTH, class T>
__device__ Accumulate<T> row_sum_of_squares(const T* values, int64_t count) {
  constexpr int64_t STEP = LANES * WIDTH;
  Accumulate<T> sum = 0;
  int64_t i = threadIdx.x % LANES * WIDTH;
  for (; i + (UNROLL - 1) * STEP + WIDTH <= count; i += UNROLL * STEP) {
    Vector<T, WIDTH> vectors[UNROLL];
    for (int u = 0; u < UNROLL; ++u) vectors[u] = load_whole<WIDTH>(values, i + u * STEP);
    for (int u = 0; u < UNROLL; ++u) sum += sum_of_squares(vectors[u]);
  }
  KEEP_LOOP
  for (; i < count; i += STEP) sum += sum_of_squares(load_whole<WIDTH>(values, i));
  if constexpr (LANES == BLOCK) {
    return block_sum(sum);
  } else {
    return group_sum<LANES>(sum);
  }
}

// LANES threads for each row. Writes one sum of penalties per block, or the penalty if there is one block.
template <int LANES, int WIDTH, class T>
__global__ void __launch_bounds__(BLOCK, MIN_BLOCKS)
    whole_rows_kernel(const T* gradient, Accumulate<T>* block_penalties, Accumulate<T>* norms, Accumulate<T>* penalty,
                      int64_t rows, int64_t length, PowerOfExcess<Accumulate<T>> formula, Accumulate<T> scale) {
  using A = Accumulate<T>;
  constexpr int ROWS_PER_BLOCK = BLOCK / LANES;
  A sum = 0;
  // The loop's bound is uniform in the block, because every thread must take part in the reductions.
  for (int64_t first = int64_t{blockIdx.x} * ROWS_PER_BLOCK; first < rows;
       first += int64_t{gridDim.x} * ROWS_PER_BLOCK) {
    const int64_t row = first + threadIdx.x / LANES;
    const A norm = std::sqrt(row_sum_of_squares<LANES, WIDTH>(gradient + row * length, row < rows ? length : 0));
    if (row < rows && threadIdx.x % LANES == 0) {
      norms[row] = norm;
      sum += norm_penalty(norm, formula);
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    if (gridDim.x == 1) {
      *penalty = scale * sum;
    } else {
      block_penalties[blockIdx.x] = sum;
    }
  }
}

template <class A>
__global__ void __launch_bounds__(BLOCK, MIN_BLOCKS)
    mean_penalty_kernel(const A* block_penalties, A* penalty, int64_t blocks, A scale) {
  A sum = 0;
  for (int64_t i = threadIdx.x; i < blocks; i += BLOCK) sum += block_penalties[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *penalty = scale * sum;
}

// Long rows: one block for each segment writes its sum of squares.
template <int WIDTH, class T>
__global__ void __launch_bounds__(BLOCK, MIN_BLOCKS)
    segments_kernel(const T* gradient, Accumulate<T>* sums, Segments segments) {
  // There are few segments; a division of 64 bits would delay the first load.
  const auto per_row = static_cast<uint32_t>(segments.per_row);
  const int64_t row = blockIdx.x / per_row;
  const int64_t start = blockIdx.x % per_row * segments.segment_length;
  const int64_t stop =
      start + segments.segment_length < segments.length ? start + segments.segment_length : segments.length;
  const T* values = gradient + row * segments.length + start;
  const Accumulate<T> sum = row_sum_of_squares<BLOCK, WIDTH>(values, stop - start);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

template <class A>
__global__ void __launch_bounds__(BLOCK, MIN_BLOCKS)
    segments_penalty_kernel(const A* sums, A* norms, A* penalty, Segments segments, PowerOfExcess<A> formula, A scale) {
  A sum = 0;
  for (int64_t row = threadIdx.x / WARP; row < segments.rows; row += BLOCK / WARP) {
    A row_sum = 0;
    for (int64_t i = threadIdx.x % WARP; i < segments.per_row; i += WARP) row_sum += sums[row * segments.per_row + i];
    const A norm = std::sqrt(group_sum<WARP>(row_sum));
    if (threadIdx.x % WARP == 0) {
      norms[row] = norm;
      sum += norm_penalty(norm, formula);
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) *penalty = scale * sum;
}

// The threads of a block compute the slopes of its tile's rows together, each once, while the gradient arrives.
template <class Rows, class T>
__global__ void __launch_bounds__(BLOCK, Rows::MIN_BLOCKS)
    backward_kernel(const Accumulate<T>* grad_penalty, const T* gradient, const Accumulate<T>* norms, T* out, Rows rows,
                    PowerOfExcess<Accumulate<T>> formula, Accumulate<T> mean_scale) {
  using A = Accumulate<T>;
  constexpr int WIDTH = Rows::WIDTH;
  __shared__ A slopes[Rows::ROWS_OF_TILE];
  const A scale = *grad_penalty * mean_scale;
  for_each_tile(rows, [&](auto tile) {
    Packed<T, WIDTH> g[Rows::TOGETHER];
    for_each_vector(rows, tile,
                    [&](int u, int64_t i) { g[u] = Rows::template load<WIDTH>(gradient, i, rows.count()); });

    const auto end = tile + TILE<Rows> < rows.vectors ? tile + TILE<Rows> : rows.vectors;
    const auto first_row = rows.first_row(tile), last_row = rows.last_row(end - 1);
    for (auto row = first_row + threadIdx.x; row <= last_row; row += BLOCK) {
      slopes[row - first_row] = norm_penalty_slope(norms[row], formula);
    }
    __syncthreads();
    for_each_vector(rows, tile, [&](int u, int64_t i) {
      const auto slope = rows.template row_values<A>(i, [&](auto row) { return slopes[row - first_row]; });
      Vector<T, WIDTH> result = g[u].unpack();
      for (int k = 0; k < WIDTH; ++k) result.at[k] = narrow<T>(scale * slope[k] * widen(result.at[k]));
      Rows::store(out, i, rows.count(), result);
    });
    __syncthreads();  // before the next tile's slopes are written
  });
}

// weight / B: divided here, because a division in float64 is slow on most GPUs.
template <class A>
A mean_scale(const NormPenalty& formula, int64_t rows) {
  return static_cast<A>(formula.weight / static_cast<double>(rows));
}

template <int LANES>
int64_t row_blocks(int64_t rows) {
  return std::min((rows + BLOCK / LANES - 1) / (BLOCK / LANES), MAX_ROW_BLOCKS);
}

// Calls f with the number of threads for each row, a compile-time constant: few for short rows, so that none is idle;
// more if there are too few rows to fill the GPU.
template <class F>
auto with_lanes(int64_t rows, int64_t length, F&& f) {
  if (length <= 4) return f(std::integral_constant<int, 1>());
  if (length <= 64) return f(std::integral_constant<int, 8>());
  if (length <= 2048 && rows >= MAX_ROW_BLOCKS) return f(std::integral_constant<int, WARP>());
  return f(std::integral_constant<int, BLOCK>());
}

template <int WIDTH, class T>
void forward(const T* gradient, Accumulate<T>* workspace, Accumulate<T>* norms, Accumulate<T>* penalty,
             const Segments& segments, const NormPenalty& formula, cudaStream_t stream) {
  using A = Accumulate<T>;
  const PowerOfExcess<A> power(formula);
  const auto scale = mean_scale<A>(formula, segments.rows);
  if (segments.per_row > 1) {
    launch(segments_kernel<WIDTH, T>, segments.count(), stream, gradient, workspace, segments);
    launch(segments_penalty_kernel<A>, 1, stream, workspace, norms, penalty, segments, power, scale);
    return;
  }
  with_lanes(segments.rows, segments.length, [&](auto lanes) {
    if constexpr (lanes > 1 || WIDTH <= 4) {  // rows for one thread have up to 4 elements
      const int64_t blocks = row_blocks<lanes>(segments.rows);
      launch(whole_rows_kernel<lanes, WIDTH, T>, blocks, stream, gradient, workspace, norms, penalty, segments.rows,
             segments.length, power, scale);
      if (blocks > 1) {
        launch(mean_penalty_kernel<A>, 1, stream, workspace, penalty, blocks, scale);
      }
    }
  });
}

// The widest access of which every row is a multiple.
template <int WIDTH, class T>
void widest_forward(const T* gradient, Accumulate<T>* workspace, Accumulate<T>* norms, Accumulate<T>* penalty,
                    const Segments& segments, const NormPenalty& formula, cudaStream_t stream) {
  if constexpr (WIDTH > 1) {
    if (!aligned(gradient) || segments.length % WIDTH != 0) {
      return widest_forward<WIDTH / 2>(gradient, workspace, norms, penalty, segments, formula, stream);
    }
  }
  forward<WIDTH>(gradient, workspace, norms, penalty, segments, formula, stream);
}

}  // namespace

Segments segments_cuda(int64_t rows, int64_t length) {
  const int64_t wanted = std::max<int64_t>(1, MAX_ROW_BLOCKS / rows);
  const int64_t per_row = std::clamp<int64_t>(length / MIN_SEGMENT, 1, wanted);
  const int64_t even = (length + per_row - 1) / per_row;
  const int64_t segment_length = (even + 7) / 8 * 8;  // 16-byte boundaries for every type
  return {rows, length, segment_length, (length + segment_length - 1) / segment_length};
}

int64_t workspace_size_cuda(Segments segments) {
  if (segments.per_row > 1) return segments.count();
  return with_lanes(segments.rows, segments.length, [&](auto lanes) { return row_blocks<lanes>(segments.rows); });
}

template <class T>
void gradient_norm_penalty_cuda(const T* gradient, Accumulate<T>* workspace, Accumulate<T>* norms,
                                Accumulate<T>* penalty, Segments segments, NormPenalty formula, cudaStream_t stream) {
  widest_forward<FULL_WIDTH<T>>(gradient, workspace, norms, penalty, segments, formula, stream);
}

template <class T>
void gradient_norm_penalty_backward_cuda(const Accumulate<T>* grad_penalty, const T* gradient,
                                         const Accumulate<T>* norms, T* out, int64_t rows, int64_t length,
                                         NormPenalty formula, cudaStream_t stream) {
  using A = Accumulate<T>;
  with_rows<T>(aligned(gradient) && aligned(out), rows, length, [&](auto walk) {
    launch(backward_kernel<decltype(walk), T>, blocks_for_vectors(walk), stream, grad_penalty, gradient, norms, out,
           walk, PowerOfExcess<A>(formula), mean_scale<A>(formula, rows));
  });
}

#define INSTANTIATE(T)                                                                                            \
  template void gradient_norm_penalty_cuda<T>(const T*, Accumulate<T>*, Accumulate<T>*, Accumulate<T>*, Segments, \
                                              NormPenalty, cudaStream_t);                                         \
  template void gradient_norm_penalty_backward_cuda<T>(const Accumulate<T>*, const T*, const Accumulate<T>*, T*,  \
                                                       int64_t, int64_t, NormPenalty, cudaStream_t);
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace wgan_fast
