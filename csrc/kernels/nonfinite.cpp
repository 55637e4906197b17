#include "nonfinite.h"

#include "formulas.h"
#include "instruction_set.h"

namespace wgan_fast {
namespace {

// Without an early end, so that it vectorises: the usual list has nothing to find.
template <class T>
INSTRUCTION_SET_CLONES bool nonfinite_range(const T* data, int64_t begin, int64_t end) {
  uint32_t found = 0;
  for (int64_t i = begin; i < end; ++i) found |= uint32_t{!is_finite(data[i])};
  return found != 0;
}

}  // namespace

bool nonfinite_cpu(const Numbers& numbers, int64_t begin, int64_t end) {
  bool found = false;
  dispatch_dtype(numbers.dtype, [&](auto element) {
    found = nonfinite_range(static_cast<const decltype(element)*>(numbers.data), begin, end);
  });
  return found;
}

}  // namespace wgan_fast
