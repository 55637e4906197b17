#pragma once

#include "scalar.h"

namespace wgan_fast {

// One tensor of a list, without gaps.
struct Numbers {
  const void* data;
  int64_t numel;
  Dtype dtype;
};

// Whether one of the elements [begin, end) is infinite or NaN.
bool nonfinite_cpu(const Numbers& numbers, int64_t begin, int64_t end);

// Writes 1 to *found, on the device, if an element of the list is infinite or NaN. Else nothing is written.
void nonfinite_cuda(const Numbers* list, int64_t count, float* found, CUstream_st* stream);

}  // namespace wgan_fast
