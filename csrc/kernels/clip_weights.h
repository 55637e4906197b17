#pragma once

#include "scalar.h"

namespace wgan_fast {

constexpr int MAX_DIMS = 8;

// Sizes and strides of a tensor, largest stride first, with adjacent dimensions merged where possible. A tensor without
// gaps has one dimension of stride 1, whatever its memory format.
struct Layout {
  int dims;
  int64_t size[MAX_DIMS];
  int64_t stride[MAX_DIMS];  // elements

  bool dense() const { return dims == 0 || (dims == 1 && stride[0] == 1); }

  HOST_DEVICE int64_t offset(int64_t index) const {
    int64_t offset = 0;
    KEEP_LOOP
    for (int d = dims - 1; d > 0; --d) {
      offset += index % size[d] * stride[d];
      index /= size[d];
    }
    return dims == 0 ? 0 : offset + index * stride[0];
  }
};

// One tensor of a list.
struct Weights {
  void* data;
  int64_t numel;
  Dtype dtype;
  Layout layout;
};

// Clips the elements [begin, end) of one tensor.
void clip_weights_cpu(const Weights& weights, double bound, int64_t begin, int64_t end);

// Clips every tensor of the list.
void clip_weights_cuda(const Weights* weights, int64_t count, double bound, CUstream_st* stream);

}  // namespace wgan_fast
