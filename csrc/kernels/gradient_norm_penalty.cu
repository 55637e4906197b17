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

// Sum of squares of `values`, computed by LANES threads together and returned to each of them.
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
  for (; i < count; i += STEP) sum += sum_of_squares(load<WIDTH>(values, i, count));
  if constexpr (LANES == BLOCK) {
    return block_sum(sum);
  } else {
    return group_sum<LANES>(sum);
  }
}

// LANES threads for each row. Writes one sum of penalties per block, or the penalty if there is one block.
template <int LANES, int WIDTH, class T>
__global__ void __launch_bounds__(BLOCK)
    whole_rows_kernel(const T* gradient, Accumulate<T>* block_penalties, Accumulate<T>* norms, Accumulate<T>* penalty,
                      int64_t rows, int64_t length, NormPenalty formula, Accumulate<T> scale) {
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
__global__ void __launch_bounds__(BLOCK)
    mean_penalty_kernel(const A* block_penalties, A* penalty, int64_t blocks, A scale) {
  A sum = 0;
  for (int64_t i = threadIdx.x; i < blocks; i += BLOCK) sum += block_penalties[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *penalty = scale * sum;
}

// Long rows: one block for each segment writes its sum of squares.
template <int WIDTH, class T>
__global__ void __launch_bounds__(BLOCK) segments_kernel(const T* gradient, Accumulate<T>* sums, Segments segments) {
  const int64_t row = blockIdx.x / segments.per_row;
  const int64_t start = blockIdx.x % segments.per_row * segments.segment_length;
  const int64_t stop =
      start + segments.segment_length < segments.length ? start + segments.segment_length : segments.length;
  const T* values = gradient + row * segments.length + start;
  const Accumulate<T> sum = row_sum_of_squares<BLOCK, WIDTH>(values, stop - start);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

template <class A>
__global__ void __launch_bounds__(BLOCK)
    segments_penalty_kernel(const A* sums, A* norms, A* penalty, Segments segments, NormPenalty formula, A scale) {
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

template <int WIDTH, class T>
__global__ void __launch_bounds__(BLOCK)
    backward_kernel(const Accumulate<T>* grad_penalty, const T* gradient, const Accumulate<T>* norms, T* out,
                    int64_t rows, int64_t length, NormPenalty formula, Accumulate<T> mean_scale) {
  using A = Accumulate<T>;
  const int64_t count = rows * length;
  const A scale = *grad_penalty * mean_scale;
  for (int64_t i = thread_index() * WIDTH; i < count; i += thread_count() * WIDTH) {
    const auto g = load<WIDTH>(gradient, i, count);
    Vector<T, WIDTH> result{};
    RowValue factor(i, length, rows, [&](int64_t row) { return scale * norm_penalty_slope(norms[row], formula); });
    for (int k = 0; k < WIDTH; ++k, factor.advance()) result.at[k] = narrow<T>(factor.value * widen(g.at[k]));
    store<WIDTH>(out, i, count, result);
  }
}

// Fast path, for rows of whole vectors: one slope for each vector.
template <int WIDTH, class T>
__global__ void __launch_bounds__(BLOCK)
    backward_whole_kernel(const Accumulate<T>* grad_penalty, const T* gradient, const Accumulate<T>* norms, T* out,
                          uint32_t vectors, uint32_t per_row, NormPenalty formula, Accumulate<T> mean_scale) {
  using A = Accumulate<T>;
  const A scale = *grad_penalty * mean_scale;
  Vector<T, WIDTH> g[UNROLL];
  A norm[UNROLL];
  for_each_whole_vector(
      vectors, per_row,
      [&](int u, int64_t i, uint32_t row) {
        g[u] = load_whole<WIDTH>(gradient, i * WIDTH);
        norm[u] = norms[row];
      },
      [&](int u, int64_t i) {
        const A factor = scale * norm_penalty_slope(norm[u], formula);
        Vector<T, WIDTH> result{};
        for (int k = 0; k < WIDTH; ++k) result.at[k] = narrow<T>(factor * widen(g[u].at[k]));
        store_whole(out, i * WIDTH, result);
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
  const auto scale = mean_scale<Accumulate<T>>(formula, segments.rows);
  if (segments.per_row > 1) {
    launch(segments_kernel<WIDTH, T>, segments.count(), stream, gradient, workspace, segments);
    launch(segments_penalty_kernel<Accumulate<T>>, 1, stream, workspace, norms, penalty, segments, formula, scale);
    return;
  }
  with_lanes(segments.rows, segments.length, [&](auto lanes) {
    const int64_t blocks = row_blocks<lanes>(segments.rows);
    launch(whole_rows_kernel<lanes, WIDTH, T>, blocks, stream, gradient, workspace, norms, penalty, segments.rows,
           segments.length, formula, scale);
    if (blocks > 1) {
      launch(mean_penalty_kernel<Accumulate<T>>, 1, stream, workspace, penalty, blocks, scale);
    }
  });
}

// The widest access that keeps every row aligned.
template <int WIDTH, class T>
void widest_forward(const T* gradient, Accumulate<T>* workspace, Accumulate<T>* norms, Accumulate<T>* penalty,
                    const Segments& segments, const NormPenalty& formula, cudaStream_t stream) {
  if constexpr (WIDTH > 1) {
    if (!aligned(gradient) || (segments.rows > 1 && segments.length % WIDTH != 0)) {
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
  constexpr int WIDTH = FULL_WIDTH<T>;
  const int64_t count = rows * length;
  const auto scale = mean_scale<Accumulate<T>>(formula, rows);
  if (aligned(gradient) && aligned(out) && has_whole_vectors(rows, length, WIDTH)) {
    const int64_t per_row = length / WIDTH, vectors = rows * per_row;
    launch(backward_whole_kernel<WIDTH, T>, blocks_for((vectors + UNROLL - 1) / UNROLL), stream, grad_penalty, gradient,
           norms, out, static_cast<uint32_t>(vectors), static_cast<uint32_t>(per_row), formula, scale);
  } else if (aligned(gradient) && aligned(out)) {
    launch(backward_kernel<WIDTH, T>, blocks_for((count + WIDTH - 1) / WIDTH), stream, grad_penalty, gradient, norms,
           out, rows, length, formula, scale);
  } else {
    launch(backward_kernel<1, T>, blocks_for(count), stream, grad_penalty, gradient, norms, out, rows, length, formula,
           scale);
  }
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
