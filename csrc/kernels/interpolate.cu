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

}  // namespace

template <class T>
void interpolate_cuda(const T* real, const T* fake, const Accumulate<T>* t, T* out, int64_t rows, int64_t length,
                      cudaStream_t stream) {
  constexpr int WIDTH = FULL_WIDTH<T>;
  const int64_t count = rows * length;
  if (aligned(real) && aligned(fake) && aligned(out)) {
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
