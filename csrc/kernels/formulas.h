// The scalar formulas of the library, written once for CPU and CUDA.
#pragma once

#include <cmath>

#include "scalar.h"

namespace wgan_fast {

// x^ = t x~ + (1 - t) x
template <class A>
HOST_DEVICE inline A interpolate(A real, A fake, A t) {
  return t * fake + (A(1) - t) * real;
}

// penalty = weight * mean_i p(n_i), where p(n) = |n - target|^power; one-sided it is max(0, n - target)^power.
struct NormPenalty {
  double weight;
  double target;
  double power;  // at least 2
  bool one_sided;
};

// p in the arithmetic's type. Converted once, on the host: float64 is slow on most GPUs.
template <class A>
struct PowerOfExcess {
  A target;
  A power;
  bool one_sided;

  explicit PowerOfExcess(const NormPenalty& formula)
      : target(static_cast<A>(formula.target)), power(static_cast<A>(formula.power)), one_sided(formula.one_sided) {}
};

// n - target; one-sided, max(0, n - target). NaN stays NaN.
template <class A>
HOST_DEVICE inline A excess(A norm, const PowerOfExcess<A>& formula) {
  const A difference = norm - formula.target;
  return formula.one_sided && difference < A(0) ? A(0) : difference;
}

// p(n)
template <class A>
HOST_DEVICE inline A norm_penalty(A norm, const PowerOfExcess<A>& formula) {
  const A e = excess(norm, formula);
  return formula.power == A(2) ? e * e : std::pow(std::abs(e), formula.power);
}

// s = p'(n) / n, so that dp/dg = s g. The subgradient at n = 0 is 0; an epsilon inside the root would bias every norm.
template <class A>
HOST_DEVICE inline A norm_penalty_slope(A norm, const PowerOfExcess<A>& formula) {
  if (norm == A(0)) return A(0);
  const A e = excess(norm, formula);
  return (formula.power == A(2) ? A(2) : formula.power * std::pow(std::abs(e), formula.power - A(2))) * e / norm;
}

// Neither infinite nor NaN: those alone have an exponent of ones, and a difference from themselves of NaN.
HOST_DEVICE inline bool is_finite(Half x) { return (x.bits & 0x7c00u) != 0x7c00u; }
HOST_DEVICE inline bool is_finite(BFloat16 x) { return (x.bits & 0x7f80u) != 0x7f80u; }
HOST_DEVICE inline bool is_finite(float x) { return x - x == 0; }
HOST_DEVICE inline bool is_finite(double x) { return x - x == 0; }

// w <- min(max(w, -bound), bound). NaN compares false and stays, bit for bit.
template <class T>
HOST_DEVICE inline T clip(T weight, T bound) {
  return weight < -bound ? -bound : weight > bound ? bound : weight;
}

// Compares bits: magnitudes of 16-bit types have the order of their bits, with NaN after infinity.
template <class T>
HOST_DEVICE inline T clip_bits(T weight, T bound, uint16_t infinity) {
  const uint16_t magnitude = weight.bits & 0x7fffu;
  const bool beyond = magnitude > bound.bits && magnitude <= infinity;
  return {static_cast<uint16_t>(beyond ? (weight.bits & 0x8000u) | bound.bits : weight.bits)};
}
HOST_DEVICE inline Half clip(Half weight, Half bound) { return clip_bits(weight, bound, 0x7c00u); }
HOST_DEVICE inline BFloat16 clip(BFloat16 weight, BFloat16 bound) { return clip_bits(weight, bound, 0x7f80u); }

// g' = f g + decay w
// v <- alpha v + (1 - alpha) g'^2
// w <- clip(w - rate g' / (sqrt(v) + eps))
template <class T>
struct Rmsprop {
  using A = Accumulate<T>;
  A gradient_factor;  // f: the gradient's sign and scale
  A weight_decay;
  A alpha;
  A one_minus_alpha;  // rounded once
  A learning_rate;
  A eps;
  T clip;  // infinite: no clipping
};

template <class T>
HOST_DEVICE inline void rmsprop(T& weight, T gradient, T& square_average, const Rmsprop<T>& f) {
  using A = Accumulate<T>;
  const A w = widen(weight);
  const A decay = f.weight_decay * w;  // computed even if unused: compilers vectorise branch-free code
  const A g = f.gradient_factor * widen(gradient) + (f.weight_decay == A(0) ? A(0) : decay);
  const A v = f.alpha * widen(square_average) + f.one_minus_alpha * (g * g);
  square_average = narrow<T>(v);
  weight = clip(narrow<T>(w - f.learning_rate * quotient<T>(g, square_root<T>(v) + f.eps)), f.clip);
}

// y = x strictly between the bounds, else y = c + negative_slope (x - c) with the nearer bound c. NaN stands for "no
// bound": no comparison with it is true. For the same reason x = NaN counts as between the bounds.
// ReLU is {0, 0, NaN}, LeakyReLU {negative_slope, 0, NaN}, Hardtanh {0, lower, upper}.
template <class A>
struct PiecewiseLinear {
  A negative_slope;
  A lower;
  A upper;
};

template <class A>
HOST_DEVICE inline bool is_inside(A x, const PiecewiseLinear<A>& f) {
  return !((x <= f.lower) | (x >= f.upper));
}

// The value times the slope at the element that `inside` belongs to. A slope of 0 gives 0 even for infinity. The
// product is computed even if unused: compilers vectorise branch-free code.
template <class A>
HOST_DEVICE inline A apply_mask(A value, bool inside, A negative_slope) {
  const A scaled = value * negative_slope;
  return inside ? value : negative_slope == A(0) ? A(0) : scaled;
}

template <class A>
HOST_DEVICE inline A piecewise_linear(A x, const PiecewiseLinear<A>& f) {
  const A c = x <= f.lower ? f.lower : f.upper;
  const A y = c + apply_mask(x - c, false, f.negative_slope);
  return is_inside(x, f) ? x : y;
}

}  // namespace wgan_fast
