#include "interpolate.h"

#include <algorithm>

#include "formulas.h"
#include "instruction_set.h"

namespace wgan_fast {

template <class T>
INSTRUCTION_SET_CLONES void interpolate_cpu(const T* __restrict real, const T* __restrict fake,
                                            const Accumulate<T>* __restrict t, T* __restrict out, int64_t length,
                                            int64_t begin, int64_t end) {
  int64_t row = begin / length;
  for (int64_t i = begin; i < end; ++row) {
    const int64_t row_end = std::min(end, (row + 1) * length);
    for (const Accumulate<T> t_row = t[row]; i < row_end; ++i) {
      out[i] = narrow<T>(interpolate(widen(real[i]), widen(fake[i]), t_row));
    }
  }
}

#define INSTANTIATE(T) \
  template void interpolate_cpu<T>(const T*, const T*, const Accumulate<T>*, T*, int64_t, int64_t, int64_t);
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace wgan_fast
