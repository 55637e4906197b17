#include "clip_weights.h"

#include <algorithm>

#include "formulas.h"
#include "instruction_set.h"

namespace wgan_fast {
namespace {

template <class T>
INSTRUCTION_SET_CLONES void clip_dense(T* __restrict data, T bound, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) data[i] = clip(data[i], bound);
}

template <class T>
void clip_strided(T* data, const Layout& layout, T bound, int64_t begin, int64_t end) {
  const int64_t width = layout.size[layout.dims - 1];
  const int64_t stride = layout.stride[layout.dims - 1];
  for (int64_t i = begin; i < end;) {
    T* weight = data + layout.offset(i);
    for (const int64_t row_end = std::min(end, i - i % width + width); i < row_end; ++i, weight += stride) {
      *weight = clip(*weight, bound);
    }
  }
}

template <class T>
void clip_range(const Weights& weights, double bound, int64_t begin, int64_t end) {
  T* data = static_cast<T*>(weights.data);
  const T stored_bound = narrow<T>(static_cast<Accumulate<T>>(bound));
  if (weights.layout.dense()) {
    clip_dense(data, stored_bound, begin, end);
  } else {
    clip_strided(data, weights.layout, stored_bound, begin, end);
  }
}

}  // namespace

void clip_weights_cpu(const Weights& weights, double bound, int64_t begin, int64_t end) {
  dispatch_dtype(weights.dtype, [&](auto element) { clip_range<decltype(element)>(weights, bound, begin, end); });
}

}  // namespace wgan_fast
