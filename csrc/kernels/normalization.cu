#include <algorithm>
#include <cmath>
#include <type_traits>

#include "launch.cuh"
#include "normalization.h"

namespace wgan_fast {
namespace {

// Rows of one launch: fewer than 2^31, and whole samples. Tests lower it.
#ifndef WGAN_FAST_MAX_ROWS
#define WGAN_FAST_MAX_ROWS 1 << 30
#endif
constexpr int64_t MAX_ROWS = WGAN_FAST_MAX_ROWS;

// What kernels know of rows of vectors of W elements.
template <int W>
struct Geometry {
  int64_t rows, length;
  uint32_t vectors;  // of a row
  uint32_t groups, channels;
  Divisor per_groups;  // rows by groups
  Divisor per_run;     // elements of a row by those of a run
  bool one_element_runs, whole_vector_runs;
  bool centered;

  Geometry(const Rows& r, int64_t rows)
      : rows(rows),
        length(r.length()),
        vectors(static_cast<uint32_t>(length / W)),
        groups(static_cast<uint32_t>(r.groups)),
        channels(static_cast<uint32_t>(r.channels)),
        per_groups(groups),
        per_run(static_cast<uint32_t>(r.inner)),
        one_element_runs(r.inner == 1),
        whole_vector_runs(r.inner % W == 0),
        centered(r.centered) {}

  // The number of a row's first weight.
  __device__ int64_t first_weight(int64_t row) const {
    const auto number = static_cast<uint32_t>(row);
    return int64_t{number - per_groups.quotient(number) * groups} * channels;
  }

  // The weights or biases of the elements of vector v; `absent` where there are none.
  template <class T, class A = Accumulate<T>>
  __device__ Vector<A, W> parameters(const T* of_row, uint32_t v, A absent) const {
    Vector<A, W> result;
    if (of_row == nullptr) {
      for (int k = 0; k < W; ++k) result.at[k] = absent;
    } else if (W > 1 && one_element_runs) {
      const Vector<T, W> loaded = load_whole<W>(of_row, int64_t{v} * W);
      for (int k = 0; k < W; ++k) result.at[k] = widen(loaded.at[k]);
    } else if (whole_vector_runs) {
      const A one = widen(of_row[per_run.quotient(v * W)]);
      for (int k = 0; k < W; ++k) result.at[k] = one;
    } else {
      for (int k = 0; k < W; ++k) result.at[k] = widen(of_row[per_run.quotient(v * W + k)]);
    }
    return result;
  }
};

template <class T>
__device__ inline T* offset(T* pointer, int64_t by) {
  return pointer == nullptr ? pointer : pointer + by;
}

// Calls f(row, vectors) for the rows of this thread. LANES threads share a row. The calls are the same in every thread
// of the block, because all take part in sums: beyond the last row there are 0 vectors.
template <int LANES, int W, class F>
__device__ inline void for_each_row(const Geometry<W>& g, F f) {
  constexpr int ROWS_PER_BLOCK = BLOCK / LANES;
  KEEP_LOOP
  for (int64_t first = int64_t{blockIdx.x} * ROWS_PER_BLOCK; first < g.rows;
       first += int64_t{gridDim.x} * ROWS_PER_BLOCK) {
    const int64_t row = first + threadIdx.x / LANES;
    f(row, row < g.rows ? g.vectors : 0u);
  }
}

// Calls load(u, v), then use(u, v), for this thread's vectors of a row, TOGETHER at a time.
template <int LANES, int TOGETHER, class Load, class Use>
__device__ inline void for_vectors_of_row(uint32_t vectors, Load load, Use use) {
  KEEP_LOOP
  for (uint32_t first = threadIdx.x % LANES; first < vectors; first += LANES * TOGETHER) {
    UNROLL_LOOP
    for (int u = 0; u < TOGETHER; ++u) {
      if (first + u * LANES < vectors) load(u, first + u * LANES);
    }
    UNROLL_LOOP
    for (int u = 0; u < TOGETHER; ++u) {
      if (first + u * LANES < vectors) use(u, first + u * LANES);
    }
  }
}

// The sums over the LANES threads of a row, returned to each of them.
template <int LANES, int COUNT, class A>
__device__ inline void sum_over_row(A (&sums)[COUNT]) {
  constexpr int WITHIN = LANES < WARP ? LANES : WARP;
  for (int c = 0; c < COUNT; ++c) sums[c] = group_sum<WITHIN>(sums[c]);
  if constexpr (LANES > WARP) {
    static_assert(LANES == BLOCK);
    __shared__ A of_warps[COUNT][BLOCK / WARP];
    __syncthreads();  // every thread has read the sums of the previous call
    if (threadIdx.x % WARP == 0) {
      for (int c = 0; c < COUNT; ++c) of_warps[c][threadIdx.x / WARP] = sums[c];
    }
    __syncthreads();
    for (int c = 0; c < COUNT; ++c) {
      sums[c] = A(0);
      for (int warp = 0; warp < BLOCK / WARP; ++warp) sums[c] += of_warps[c][warp];
    }
  }
}

// Sums over a vector are added to a thread's at once: fewer roundings in a row.
template <int W, class A, class Term>
__device__ inline void add_vector(A& sum, Term term) {
  A part = term(0);
  for (int k = 1; k < W; ++k) part += term(k);
  sum += part;
}

// In two passes: of the differences from the first mean, the mean is what rounding left out of it.
template <int LANES, int W, class T, class A = Accumulate<T>>
__device__ inline RowStatistics<A> statistics_of(const T* x, uint32_t vectors, const Geometry<W>& g, A eps,
                                                 A inverse_length) {
  constexpr int TOGETHER = 4;
  Packed<T, W> loaded[TOGETHER];
  const auto load = [&](int u, uint32_t v) { loaded[u] = load_whole<W>(x, int64_t{v} * W); };
  A mean = 0;
  if (g.centered) {
    A sum[1] = {};
    for_vectors_of_row<LANES, TOGETHER>(vectors, load, [&](int u, uint32_t) {
      const Vector<T, W> values = loaded[u].unpack();
      add_vector<W>(sum[0], [&](int k) { return widen(values.at[k]); });
    });
    sum_over_row<LANES>(sum);
    mean = sum[0] * inverse_length;
  }
  A sums[2] = {};
  for_vectors_of_row<LANES, TOGETHER>(vectors, load, [&](int u, uint32_t) {
    const Vector<T, W> values = loaded[u].unpack();
    const auto difference = [&](int k) { return widen(values.at[k]) - mean; };
    add_vector<W>(sums[0], difference);
    add_vector<W>(sums[1], [&](int k) { return difference(k) * difference(k); });
  });
  sum_over_row<LANES>(sums);
  const A rest = g.centered ? sums[0] * inverse_length : A(0);
  const A variance = sums[1] * inverse_length - rest * rest;
  return {mean, rest, A(1) / std::sqrt((variance < A(0) ? A(0) : variance) + eps)};
}

template <int LANES, int W, class T>
__global__ void __launch_bounds__(BLOCK, MIN_BLOCKS)
    normalization_kernel(const T* x, const T* weight, const T* bias, T* y, RowStatistics<Accumulate<T>>* statistics,
                         Geometry<W> g, Accumulate<T> eps, Accumulate<T> inverse_length) {
  using A = Accumulate<T>;
  for_each_row<LANES>(g, [&](int64_t row, uint32_t vectors) {
    const T* in = x + row * g.length;
    T* out = y + row * g.length;
    const RowStatistics<A> s = statistics_of<LANES>(in, vectors, g, eps, inverse_length);
    if (vectors > 0 && threadIdx.x % LANES == 0) statistics[row] = s;
    const int64_t first = g.first_weight(row);
    const T *w = offset(weight, first), *b = offset(bias, first);
    constexpr int TOGETHER = 2;
    Packed<T, W> loaded[TOGETHER];
    for_vectors_of_row<LANES, TOGETHER>(
        vectors, [&](int u, uint32_t v) { loaded[u] = load_whole<W>(in, int64_t{v} * W); },
        [&](int u, uint32_t v) {
          Vector<T, W> values = loaded[u].unpack();
          const Vector<A, W> scale = g.parameters(w, v, A(1)), shift = g.parameters(b, v, A(0));
          for (int k = 0; k < W; ++k) {
            values.at[k] = narrow<T>(normalized(widen(values.at[k]), s) * scale.at[k] + shift.at[k]);
          }
          store_whole(out, int64_t{v} * W, values);
        });
  });
}

template <int LANES, int W, class T>
__global__ void __launch_bounds__(BLOCK, MIN_BLOCKS)
    normalization_backward_kernel(const T* grad, const T* x, const RowStatistics<Accumulate<T>>* statistics,
                                  const T* weight, T* grad_x, Geometry<W> g, Accumulate<T> inverse_length) {
  using A = Accumulate<T>;
  for_each_row<LANES>(g, [&](int64_t row, uint32_t vectors) {
    const int64_t start = row * g.length;
    const T* w = offset(weight, g.first_weight(row));
    const RowStatistics<A> s = vectors > 0 ? statistics[row] : RowStatistics<A>{};
    constexpr int TOGETHER = 2;
    Packed<T, W> of_grad[TOGETHER], of_x[TOGETHER];
    const auto load = [&](int u, uint32_t v) {
      of_grad[u] = load_whole<W>(grad + start, int64_t{v} * W);
      of_x[u] = load_whole<W>(x + start, int64_t{v} * W);
    };
    A sums[2] = {};  // of h and h x^
    for_vectors_of_row<LANES, TOGETHER>(vectors, load, [&](int u, uint32_t v) {
      const Vector<T, W> gradient = of_grad[u].unpack(), values = of_x[u].unpack();
      const Vector<A, W> scale = g.parameters(w, v, A(1));
      const auto h = [&](int k) { return widen(gradient.at[k]) * scale.at[k]; };
      add_vector<W>(sums[0], h);
      add_vector<W>(sums[1], [&](int k) { return h(k) * normalized(widen(values.at[k]), s); });
    });
    sum_over_row<LANES>(sums);
    const A a = g.centered ? sums[0] * inverse_length : A(0), c = sums[1] * inverse_length;
    for_vectors_of_row<LANES, TOGETHER>(vectors, load, [&](int u, uint32_t v) {
      Vector<T, W> gradient = of_grad[u].unpack();
      const Vector<T, W> values = of_x[u].unpack();
      const Vector<A, W> scale = g.parameters(w, v, A(1));
      for (int k = 0; k < W; ++k) {
        const A h = widen(gradient.at[k]) * scale.at[k], z = normalized(widen(values.at[k]), s);
        gradient.at[k] = narrow<T>(first_derivative(h, z, a, c, s.r));
      }
      store_whole(grad_x + start, int64_t{v} * W, gradient);
    });
  });
}

// What the sums for the weight take of a row's second derivative.
template <class A>
struct RowMeans {
  A mean_u, p;
};

template <int LANES, int W, class T>
__global__ void __launch_bounds__(BLOCK, MIN_BLOCKS)
    normalization_double_backward_kernel(const T* grad_grad, const T* grad, const T* x,
                                         const RowStatistics<Accumulate<T>>* statistics, const T* weight,
                                         T* grad_grad_out, T* grad_x, RowMeans<Accumulate<T>>* means_of_rows,
                                         Geometry<W> g, Accumulate<T> inverse_length) {
  using A = Accumulate<T>;
  for_each_row<LANES>(g, [&](int64_t row, uint32_t vectors) {
    const int64_t start = row * g.length;
    const T* w = offset(weight, g.first_weight(row));
    const RowStatistics<A> s = vectors > 0 ? statistics[row] : RowStatistics<A>{};
    Packed<T, W> of_u, of_grad, of_x;
    const auto load = [&](int, uint32_t v) {
      of_u = load_whole<W>(grad_grad + start, int64_t{v} * W);
      of_grad = load_whole<W>(grad + start, int64_t{v} * W);
      of_x = load_whole<W>(x + start, int64_t{v} * W);
    };
    A means[5] = {};
    for_vectors_of_row<LANES, 1>(vectors, load, [&](int, uint32_t v) {
      const Vector<T, W> along = of_u.unpack(), gradient = of_grad.unpack(), values = of_x.unpack();
      const Vector<A, W> scale = g.parameters(w, v, A(1));
      A parts[5] = {};
      for (int k = 0; k < W; ++k) {
        const A u = widen(along.at[k]), h = widen(gradient.at[k]) * scale.at[k];
        const A z = normalized(widen(values.at[k]), s);
        parts[0] += u;
        parts[1] += u * z;
        parts[2] += h;
        parts[3] += h * z;
        parts[4] += u * h;
      }
      for (int m = 0; m < 5; ++m) means[m] += parts[m];
    });
    sum_over_row<LANES>(means);
    for (int m = 0; m < 5; ++m) means[m] *= inverse_length;
    const SecondDerivative<A> second(means, s.r, g.centered);
    if (means_of_rows != nullptr && vectors > 0 && threadIdx.x % LANES == 0) {
      means_of_rows[row] = {second.mean_u, second.p};
    }
    for_vectors_of_row<LANES, 1>(vectors, load, [&](int, uint32_t v) {
      Vector<T, W> along = of_u.unpack(), gradient = of_grad.unpack();
      const Vector<T, W> values = of_x.unpack();
      const Vector<A, W> scale = g.parameters(w, v, A(1));
      for (int k = 0; k < W; ++k) {
        const A u = widen(along.at[k]), h = widen(gradient.at[k]) * scale.at[k];
        const A z = normalized(widen(values.at[k]), s);
        along.at[k] = narrow<T>(second.q(u, z) * scale.at[k]);
        gradient.at[k] = narrow<T>(second.of_x(u, h, z));
      }
      store_whole(grad_grad_out + start, int64_t{v} * W, along);
      store_whole(grad_x + start, int64_t{v} * W, gradient);
    });
  });
}

// Sums over samples, for the derivatives by weight and bias. A block sums a tile of a sample, WARP vectors, over a part
// of the samples; its warps take turns with them.
struct Samples {
  int64_t count, length;  // length: elements of one
  int64_t per_part;
  uint32_t vectors, tiles;  // of a sample
  uint32_t groups;
  Divisor per_row;  // elements of a sample by those of a row

  template <int W>
  static Samples of(const Rows& rows, int64_t count) {
    const int64_t samples = count / rows.groups, length = rows.groups * rows.length();
    const int64_t parts = normalization_parts_cuda(rows, count), vectors = length / W;
    return {samples,
            length,
            (samples + parts - 1) / parts,
            static_cast<uint32_t>(vectors),
            static_cast<uint32_t>((vectors + WARP - 1) / WARP),
            static_cast<uint32_t>(rows.groups),
            Divisor(static_cast<uint32_t>(rows.length()))};
  }
};

// g x^ and g
template <class T>
struct FirstTerms {
  using A = Accumulate<T>;
  static constexpr int INPUTS = 2, SUMS = 2;
  const T* in[INPUTS];  // grad, x
  const RowStatistics<A>* statistics;
  A* out[SUMS];  // for weight and bias; may be null

  struct OfRow {
    RowStatistics<A> s;
    __device__ void add(const A (&numbers)[INPUTS], A (&sums)[SUMS]) const {
      sums[0] += numbers[0] * normalized(numbers[1], s);
      sums[1] += numbers[0];
    }
  };
  __device__ OfRow of_row(int64_t row) const { return {statistics[row]}; }
};

// g q
template <class T>
struct SecondTerms {
  using A = Accumulate<T>;
  static constexpr int INPUTS = 3, SUMS = 1;
  const T* in[INPUTS];  // grad, x, grad_grad
  const RowStatistics<A>* statistics;
  const RowMeans<A>* means;
  A* out[SUMS];

  struct OfRow {
    RowStatistics<A> s;
    RowMeans<A> means;
    __device__ void add(const A (&numbers)[INPUTS], A (&sums)[SUMS]) const {
      const A q = first_derivative(numbers[2], normalized(numbers[1], s), means.mean_u, means.p, s.r);
      sums[0] += q * numbers[0];
    }
  };
  __device__ OfRow of_row(int64_t row) const { return {statistics[row], means[row]}; }
};

template <int W, class T, class Terms>
__global__ void __launch_bounds__(BLOCK, MIN_BLOCKS)
    sums_over_samples_kernel(Terms terms, Samples samples, int64_t blocks) {
  using A = Accumulate<T>;
  constexpr int WARPS = BLOCK / WARP;
  __shared__ A of_warps[WARPS][W][WARP];
  const int lane = static_cast<int>(threadIdx.x) % WARP, warp = static_cast<int>(threadIdx.x) / WARP;
  KEEP_LOOP
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const auto number = static_cast<uint32_t>(block);
    const uint32_t part = number / samples.tiles, first = (number - part * samples.tiles) * WARP;
    const uint32_t vector = first + lane;
    A sums[W][Terms::SUMS] = {};
    if (vector < samples.vectors) {
      const uint32_t group = samples.per_row.quotient(vector * W);
      const int64_t begin = part * samples.per_part, after = begin + samples.per_part;
      const int64_t end = after < samples.count ? after : samples.count;
      KEEP_LOOP
      for (int64_t sample = begin + warp; sample < end; sample += WARPS) {
        Vector<T, W> loaded[Terms::INPUTS];
        for (int a = 0; a < Terms::INPUTS; ++a) {
          loaded[a] = load_whole<W>(terms.in[a] + sample * samples.length, int64_t{vector} * W);
        }
        const auto of_row = terms.of_row(sample * samples.groups + group);
        for (int k = 0; k < W; ++k) {
          A numbers[Terms::INPUTS];
          for (int a = 0; a < Terms::INPUTS; ++a) numbers[a] = widen(loaded[a].at[k]);
          of_row.add(numbers, sums[k]);
        }
      }
    }
    UNROLL_LOOP
    for (int s = 0; s < Terms::SUMS; ++s) {
      if (terms.out[s] == nullptr) continue;
      __syncthreads();  // every thread has read the previous sums
      for (int k = 0; k < W; ++k) of_warps[warp][k][lane] = sums[k][s];
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < W * WARP; i += BLOCK) {
        const int k = i / WARP;
        if (first + lane >= samples.vectors) continue;
        A total = 0;
        for (int w = 0; w < WARPS; ++w) total += of_warps[w][k][lane];
        terms.out[s][part * samples.length + int64_t{first + lane} * W + k] = total;
      }
    }
  }
}

// Calls f with the number of threads for each row, a compile-time constant: few for short rows, so that none is idle;
// more if there are too few rows to fill the GPU.
template <class F>
void with_lanes(int64_t rows, int64_t vectors, F&& f) {
  if (vectors <= 16) return f(std::integral_constant<int, 8>());
  if (vectors <= 32 || (vectors <= 128 && rows >= 1024)) return f(std::integral_constant<int, WARP>());
  f(std::integral_constant<int, BLOCK>());
}

template <class T>
constexpr int WIDTH = std::is_same_v<T, double> ? 1 : FULL_WIDTH<T>;  // few use float64: it has half of the kernels

// Calls f(width) with the number of elements of a vector, a compile-time constant.
template <class T, class F, class... Pointers>
void with_width(const Rows& rows, F&& f, const Pointers*... pointers) {
  if constexpr (WIDTH<T> > 1) {
    if (rows.length() % WIDTH<T> == 0 && (aligned(pointers) && ...)) return f(std::integral_constant<int, WIDTH<T>>());
  }
  f(std::integral_constant<int, 1>());
}

// Calls f(geometry, lanes, blocks, first row) for each launch.
template <int W, class F>
void for_launches(const Rows& rows, int64_t count, F&& f) {
  const int64_t most = std::max<int64_t>(1, MAX_ROWS / rows.groups) * rows.groups;
  for (int64_t first = 0; first < count; first += most) {
    const Geometry<W> geometry(rows, std::min(most, count - first));
    with_lanes(geometry.rows, geometry.vectors,
               [&](auto lanes) { f(geometry, lanes, blocks_for(geometry.rows * lanes), first); });
  }
}

// Without weights a row is one run.
Rows for_kernels(Rows rows, bool weights) {
  if (weights) return rows;
  rows.inner = rows.length();
  rows.channels = 1;
  return rows;
}

template <class A>
A inverse(int64_t length) {
  return static_cast<A>(1.0 / static_cast<double>(length));
}

template <int W, class T, class Terms>
void sum_over_samples(const Terms& terms, const Rows& rows, int64_t count, cudaStream_t stream) {
  const Samples samples = Samples::of<W>(rows, count);
  const int64_t blocks = samples.tiles * normalization_parts_cuda(rows, count);
  launch(sums_over_samples_kernel<W, T, Terms>, std::min(blocks, MAX_BLOCKS), stream, terms, samples, blocks);
}

}  // namespace

// Enough blocks to fill any GPU, and at least two samples for each warp.
int64_t normalization_parts_cuda(Rows rows, int64_t count) {
  const int64_t samples = count / rows.groups, tiles = (rows.groups * rows.length() + BLOCK - 1) / BLOCK;
  const int64_t most = (samples + 15) / 16;
  const int64_t wanted = std::clamp<int64_t>(1024 / tiles, 1, std::max<int64_t>(1, most));
  const int64_t per_part = (samples + wanted - 1) / wanted;
  return samples == 0 ? 0 : (samples + per_part - 1) / per_part;
}

template <class T>
void normalization_cuda(const T* x, const T* weight, const T* bias, T* y, RowStatistics<Accumulate<T>>* statistics,
                        Rows given, double eps, int64_t count, cudaStream_t stream) {
  using A = Accumulate<T>;
  const Rows rows = for_kernels(given, weight != nullptr || bias != nullptr);
  const auto run = [&](auto width) {
    for_launches<width>(rows, count, [&](const auto& g, auto lanes, int64_t blocks, int64_t row) {
      launch(normalization_kernel<lanes, width, T>, blocks, stream, x + row * g.length, weight, bias,
             y + row * g.length, statistics + row, g, static_cast<A>(eps), inverse<A>(g.length));
    });
  };
  with_width<T>(rows, run, x, weight, bias, y);
}

template <class T>
void normalization_backward_cuda(const T* grad, const T* x, const RowStatistics<Accumulate<T>>* statistics,
                                 const T* weight, T* grad_x, Accumulate<T>* grad_weight, Accumulate<T>* grad_bias,
                                 Rows given, int64_t count, cudaStream_t stream) {
  using A = Accumulate<T>;
  const Rows rows = for_kernels(given, weight != nullptr);
  const auto run = [&](auto width) {
    if (grad_x != nullptr) {
      for_launches<width>(rows, count, [&](const auto& g, auto lanes, int64_t blocks, int64_t row) {
        const int64_t start = row * g.length;
        launch(normalization_backward_kernel<lanes, width, T>, blocks, stream, grad + start, x + start,
               statistics + row, weight, grad_x + start, g, inverse<A>(g.length));
      });
    }
    if (grad_weight != nullptr || grad_bias != nullptr) {
      sum_over_samples<width, T>(FirstTerms<T>{{grad, x}, statistics, {grad_weight, grad_bias}}, rows, count, stream);
    }
  };
  with_width<T>(rows, run, grad, x, weight, grad_x);
}

template <class T>
void normalization_double_backward_cuda(const T* grad_grad, const T* grad, const T* x,
                                        const RowStatistics<Accumulate<T>>* statistics, const T* weight,
                                        T* grad_grad_out, T* grad_x, Accumulate<T>* grad_weight,
                                        Accumulate<T>* means_of_rows, Rows given, int64_t count, cudaStream_t stream) {
  using A = Accumulate<T>;
  const Rows rows = for_kernels(given, weight != nullptr);
  auto* means = reinterpret_cast<RowMeans<A>*>(means_of_rows);
  const auto run = [&](auto width) {
    for_launches<width>(rows, count, [&](const auto& g, auto lanes, int64_t blocks, int64_t row) {
      const int64_t start = row * g.length;
      launch(normalization_double_backward_kernel<lanes, width, T>, blocks, stream, grad_grad + start, grad + start,
             x + start, statistics + row, weight, grad_grad_out + start, grad_x + start,
             means == nullptr ? means : means + row, g, inverse<A>(g.length));
    });
    if (grad_weight != nullptr) {
      sum_over_samples<width, T>(SecondTerms<T>{{grad, x, grad_grad}, statistics, means, {grad_weight}}, rows, count,
                                 stream);
    }
  };
  with_width<T>(rows, run, grad_grad, grad, x, weight, grad_grad_out, grad_x);
}

#define INSTANTIATE(T)                                                                                                \
  template void normalization_cuda<T>(const T*, const T*, const T*, T*, RowStatistics<Accumulate<T>>*, Rows, double,  \
                                      int64_t, cudaStream_t);                                                         \
  template void normalization_backward_cuda<T>(const T*, const T*, const RowStatistics<Accumulate<T>>*, const T*, T*, \
                                               Accumulate<T>*, Accumulate<T>*, Rows, int64_t, cudaStream_t);          \
  template void normalization_double_backward_cuda<T>(const T*, const T*, const T*,                                   \
                                                      const RowStatistics<Accumulate<T>>*, const T*, T*, T*,          \
                                                      Accumulate<T>*, Accumulate<T>*, Rows, int64_t, cudaStream_t);
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace wgan_fast
