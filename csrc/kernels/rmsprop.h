#pragma once

#include "formulas.h"

namespace wgan_fast {

// A number on the host or on the kernel's device. One on the device needs no synchronisation, and a captured graph
// reads its current value in every replay.
struct Number {
  double value;
  const void* on_device;  // or null
  bool is_double;         // else it is float32
};

// One step of RMSprop followed by weight clipping; the same numbers for every tensor of a list.
struct RmspropStep {
  Number learning_rate;
  Number grad_scale;  // gradients are divided by it
  Number found_inf;   // if not 0, nothing is written
  double alpha;
  double eps;
  double weight_decay;
  double clip;  // infinite: no clipping
  bool maximize;

  template <class T>
  Rmsprop<T> formula(double learning_rate, double grad_scale) const {
    using A = Accumulate<T>;
    return {static_cast<A>((maximize ? -1 : 1) / grad_scale),
            static_cast<A>(weight_decay),
            static_cast<A>(alpha),
            static_cast<A>(1 - alpha),
            static_cast<A>(learning_rate),
            static_cast<A>(eps),
            narrow<T>(static_cast<A>(clip))};
  }
};

// One parameter of a list. The three arrays have the same strides and no gaps.
struct Parameter {
  void* weight;
  const void* gradient;
  void* square_average;
  int64_t numel;
  Dtype dtype;
};

// Updates the elements [begin, end) of one parameter. The numbers must be on the host; found_inf is ignored.
void rmsprop_cpu(const Parameter& parameter, const RmspropStep& step, int64_t begin, int64_t end);

// Updates every parameter of the list.
void rmsprop_cuda(const Parameter* parameters, int64_t count, const RmspropStep& step, CUstream_st* stream);

}  // namespace wgan_fast
