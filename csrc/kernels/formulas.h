// The scalar formulas of the library, written once for CPU and CUDA.
#pragma once

#include "scalar.h"

namespace wgan_fast {

// x^ = t x~ + (1 - t) x
template <class A>
HOST_DEVICE inline A interpolate(A real, A fake, A t) {
  return t * fake + (A(1) - t) * real;
}

// What of the norm is penalised: n - target, or max(0, n - target) when one-sided. NaN stays NaN.
template <class A>
HOST_DEVICE inline A excess(A norm, A target, bool one_sided) {
  const A difference = norm - target;
  return one_sided && difference < A(0) ? A(0) : difference;
}

// p = (n - target)^2
template <class A>
HOST_DEVICE inline A norm_penalty(A norm, A target, bool one_sided) {
  const A e = excess(norm, target, one_sided);
  return e * e;
}

// s in dp/dg = s g, that is 2 (n - target) / n. At n = 0 the subgradient 0 is taken: an epsilon inside the root would
// bias every norm.
template <class A>
HOST_DEVICE inline A norm_penalty_slope(A norm, A target, bool one_sided) {
  return norm == A(0) ? A(0) : A(2) * excess(norm, target, one_sided) / norm;
}

// w <- min(max(w, -bound), bound). NaN compares false and is kept, bit for bit.
template <class T>
HOST_DEVICE inline T clip(T weight, T bound) {
  return weight < -bound ? -bound : weight > bound ? bound : weight;
}

// The 16-bit types order by magnitude as their bits do, infinity last and NaN behind it: no arithmetic is needed.
template <class T>
HOST_DEVICE inline T clip_bits(T weight, T bound, uint16_t infinity) {
  const uint16_t magnitude = weight.bits & 0x7fffu;
  const bool beyond = magnitude > bound.bits && magnitude <= infinity;
  return {static_cast<uint16_t>(beyond ? (weight.bits & 0x8000u) | bound.bits : weight.bits)};
}
HOST_DEVICE inline Half clip(Half weight, Half bound) { return clip_bits(weight, bound, 0x7c00u); }
HOST_DEVICE inline BFloat16 clip(BFloat16 weight, BFloat16 bound) { return clip_bits(weight, bound, 0x7f80u); }

}  // namespace wgan_fast
