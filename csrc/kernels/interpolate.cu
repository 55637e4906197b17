#include "formulas.h"
#include "interpolate.h"
#include "launch.cuh"

namespace wgan_fast {
namespace {

template <int WIDTH, class T>
__global__ void __launch_bounds__(BLOCK)
    interpolate_kernel(const T* real, const T* fake, const Accumulate<T>* t, T* out, int64_t rows, int64_t length) {
  const int64_t count = rows * length;
  for (int64_t i = thread_index() * WIDTH; i < count; i += thread_count() * WIDTH) {
    const auto x = load<WIDTH>(real, i, count);
    const auto y = load<WIDTH>(fake, i, count);
    Vector<T, WIDTH> result{};
    RowValue t_row(i, length, rows, [t](int64_t row) { return t[row]; });
    for (int k = 0; k < WIDTH; ++k, t_row.advance()) {
      result.at[k] = narrow<T>(interpolate(widen(x.at[k]), widen(y.at[k]), t_row.value));
    }
    store<WIDTH>(out, i, count, result);
  }
}

// Fast path, for rows of whole vectors: one t for each vector.
template <int WIDTH, class T>
__global__ void __launch_bounds__(BLOCK) interpolate_whole_kernel(const T* real, const T* fake, const Accumulate<T>* t,
                                                                  T* out, uint32_t vectors, uint32_t per_row) {
  Vector<T, WIDTH> x[UNROLL], y[UNROLL];
  Accumulate<T> t_row[UNROLL];
  for_each_whole_vector(
      vectors, per_row,
      [&](int u, int64_t i, uint32_t row) {
        x[u] = load_whole<WIDTH>(real, i * WIDTH);
        y[u] = load_whole<WIDTH>(fake, i * WIDTH);
        t_row[u] = t[row];
      },
      [&](int u, int64_t i) {
        Vector<T, WIDTH> result{};
        for (int k = 0; k < WIDTH; ++k) {
          result.at[k] = narrow<T>(interpolate(widen(x[u].at[k]), widen(y[u].at[k]), t_row[u]));
        }
        store_whole(out, i * WIDTH, result);
      });
}

}  // namespace

template <class T>
void interpolate_cuda(const T* real, const T* fake, const Accumulate<T>* t, T* out, int64_t rows, int64_t length,
                      cudaStream_t stream) {
  constexpr int WIDTH = FULL_WIDTH<T>;
  const int64_t count = rows * length;
  if (aligned(real) && aligned(fake) && aligned(out) && has_whole_vectors(rows, length, WIDTH)) {
    const int64_t per_row = length / WIDTH, vectors = rows * per_row;
    launch(interpolate_whole_kernel<WIDTH, T>, blocks_for((vectors + UNROLL - 1) / UNROLL), stream, real, fake, t, out,
           static_cast<uint32_t>(vectors), static_cast<uint32_t>(per_row));
  } else if (aligned(real) && aligned(fake) && aligned(out)) {
    launch(interpolate_kernel<WIDTH, T>, blocks_for((count + WIDTH - 1) / WIDTH), stream, real, fake, t, out, rows,
           length);
  } else {
    launch(interpolate_kernel<1, T>, blocks_for(count), stream, real, fake, t, out, rows, length);
  }
}

#define INSTANTIATE(T) \
  template void interpolate_cuda<T>(const T*, const T*, const Accumulate<T>*, T*, int64_t, int64_t, cudaStream_t);
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace wgan_fast
