#include "formulas.h"
#include "interpolate.h"
#include "launch.cuh"

namespace wgan_fast {
namespace {

template <class Rows, class T>
__global__ void __launch_bounds__(BLOCK, Rows::MIN_BLOCKS)
    interpolate_kernel(const T* real, const T* fake, const Accumulate<T>* t, T* out, Rows rows) {
  using A = Accumulate<T>;
  constexpr int WIDTH = Rows::WIDTH;
  for_each_tile(rows, [&](auto tile) {
    Packed<T, WIDTH> x[Rows::TOGETHER], y[Rows::TOGETHER];
    typename Rows::template RowValues<A> t_row[Rows::TOGETHER] = {};
    for_each_vector(rows, tile, [&](int u, int64_t i) {
      x[u] = Rows::template load<WIDTH>(real, i, rows.count());
      y[u] = Rows::template load<WIDTH>(fake, i, rows.count());
      t_row[u] = rows.template row_values<A>(i, [t](int64_t row) { return t[row]; });
    });
    for_each_vector(rows, tile, [&](int u, int64_t i) {
      const Vector<T, WIDTH> real_vector = x[u].unpack(), fake_vector = y[u].unpack();
      Vector<T, WIDTH> result{};
      for (int k = 0; k < WIDTH; ++k) {
        result.at[k] = narrow<T>(interpolate(widen(real_vector.at[k]), widen(fake_vector.at[k]), t_row[u][k]));
      }
      Rows::store(out, i, rows.count(), result);
    });
  });
}

}  // namespace

template <class T>
void interpolate_cuda(const T* real, const T* fake, const Accumulate<T>* t, T* out, int64_t rows, int64_t length,
                      cudaStream_t stream) {
  with_rows<T>(aligned(real) && aligned(fake) && aligned(out), rows, length, [&](auto walk) {
    launch(interpolate_kernel<decltype(walk), T>, blocks_for_vectors(walk), stream, real, fake, t, out, walk);
  });
}

#define INSTANTIATE(T) \
  template void interpolate_cuda<T>(const T*, const T*, const Accumulate<T>*, T*, int64_t, int64_t, cudaStream_t);
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace wgan_fast
