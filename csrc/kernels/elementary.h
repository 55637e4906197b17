// Elementary functions of float32 without branches, tables or calls, so that loops over them vectorise on any
// instruction set; within a few units in the last place. The polynomials are weighted minimax fits. float64 calls the
// standard library. The same code runs on CPU and CUDA, except for the exponential, which a GPU has.
#pragma once

#include <cmath>

#include "scalar.h"

namespace wgan_fast {

template <class A>
HOST_DEVICE inline A clamp(A x, A lower, A upper) {
  const A above = x < lower ? lower : x;  // NaN stays NaN
  return above > upper ? upper : above;
}

// e^x = 2^n e^r with n = round(x / ln 2), for x up to `upper`, and e^upper beyond. float32: between e^-87 and e^88,
// which are normal numbers.
HOST_DEVICE inline float exponential(float x, float upper = 88.0f) {
#ifdef __CUDA_ARCH__
  return std::exp(x > upper ? upper : x);
#else
  const float clamped = clamp(x, -87.0f, upper);
  const float shifted = clamped * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the lowest bits are now n
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  const float p = ((0.00139336439f * r + 0.00835720357f) * r + 0.0416664891f) * r + 0.166666314f;
  const float e = ((p * r + 0.5f) * (r * r) + r) + 1.0f;
  return e * bit_cast<float>((bit_cast<uint32_t>(shifted) << 23) + 0x3f800000u);
#endif
}
HOST_DEVICE inline double exponential(double x, double upper = 1e300) { return std::exp(x > upper ? upper : x); }

// e^x - 1
HOST_DEVICE inline float exponential_minus_1(float x) {
  const float p =
      ((((0.000199794988f * x + 0.00139821961f) * x + 0.00833312795f) * x + 0.0416657925f) * x + 0.166666672f) * x +
      0.5f;
  const float near_0 = p * (x * x) + x;
  const float beyond = exponential(x) - 1.0f;
  return std::abs(x) < 0.5f ? near_0 : beyond;
}
HOST_DEVICE inline double exponential_minus_1(double x) { return std::expm1(x); }

// log(1 + e) for 0 <= e <= 1, as 2 artanh(e / (2 + e))
HOST_DEVICE inline float log_1_plus(float e) {
  const float z = e / (2.0f + e), q = z * z;
  const float p = ((0.134418085f * q + 0.14115639f) * q + 0.20003891f) * q + 0.333333194f;
  return 2.0f * (z + z * (q * p));
}
HOST_DEVICE inline double log_1_plus(double e) { return std::log1p(e); }

HOST_DEVICE inline float hyperbolic_tangent(float x) {
  const float q = x * x;
  const float p = (((-0.00611721724f * q + 0.0210136045f) * q - 0.0538550951f) * q + 0.13332805f) * q - 0.333333284f;
  const float near_0 = x + x * (q * p);
  const float e = exponential(2.0f * std::abs(x));
  const float beyond = std::copysign(1.0f - 2.0f / (e + 1.0f), x);
  return std::abs(x) < 0.625f ? near_0 : beyond;
}
HOST_DEVICE inline double hyperbolic_tangent(double x) { return std::tanh(x); }

template <class A>
HOST_DEVICE inline A logistic(A x) {
  return A(1) / (A(1) + exponential(-x));
}

// log(1 + e^x)
template <class A>
HOST_DEVICE inline A log_1_plus_exponential(A x) {
  return (x > A(0) ? x : x < A(0) ? A(0) : x) + log_1_plus(exponential(-std::abs(x)));
}

// The standard normal density, and its integral from -infinity to x.
template <class A>
HOST_DEVICE inline A normal_density(A x) {
  return A(0.398942280401432677939946) * exponential(A(-0.5) * (x * x));
}
HOST_DEVICE inline float normal_distribution(float x) {
  const float t = 1.0f / (1.0f + 0.3f * std::abs(x));
  const float q =
      (((((((0.0382990651f * t - 0.168780386f) * t + 0.227861837f) * t - 0.0755916387f) * t + 0.141902164f) * t +
         0.0949540362f) *
            t +
        0.121850915f) *
           t +
       0.119497456f) *
          t +
      6.59320449e-06f;
  const float tail = exponential(-0.5f * (x * x)) * q;
  return x > 0.0f ? 1.0f - tail : tail;
}
HOST_DEVICE inline double normal_distribution(double x) { return 0.5 * std::erfc(x * -0.707106781186547524400844); }

}  // namespace wgan_fast
