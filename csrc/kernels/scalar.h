// The kernels' four element types. 16-bit types are for storage only: arithmetic is in Accumulate<T>.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

// Before a loop that must be unrolled, because vectors indexed by its variable are to stay in registers; and before one
// of few rounds, which nvcc would unroll.
#ifdef __CUDA_ARCH__
#define UNROLL_LOOP _Pragma("unroll")
#define KEEP_LOOP _Pragma("unroll 1")
#else
#define UNROLL_LOOP
#define KEEP_LOOP
#endif

struct CUstream_st;  // cudaStream_t is a pointer to it; declared here so that the headers need no CUDA header

namespace wgan_fast {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

enum class Dtype : int8_t { float16, bfloat16, float32, float64 };

template <class T>
struct Scalar;
template <>
struct Scalar<Half> {
  static constexpr Dtype dtype = Dtype::float16;
  using Accumulate = float;
};
template <>
struct Scalar<BFloat16> {
  static constexpr Dtype dtype = Dtype::bfloat16;
  using Accumulate = float;
};
template <>
struct Scalar<float> {
  static constexpr Dtype dtype = Dtype::float32;
  using Accumulate = float;
};
template <>
struct Scalar<double> {
  static constexpr Dtype dtype = Dtype::float64;
  using Accumulate = double;
};

template <class T>
using Accumulate = typename Scalar<T>::Accumulate;

// Calls f(T{}) with the element type T of `dtype`, on the host and inside kernels.
#ifdef __CUDACC__
#pragma nv_exec_check_disable  // f may be a device-only function
#endif
template <class F>
HOST_DEVICE inline void dispatch_dtype(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::float16:
      return f(Half{});
    case Dtype::bfloat16:
      return f(BFloat16{});
    case Dtype::float32:
      return f(float{});
    case Dtype::float64:
      return f(double{});
  }
}

template <class To, class From>
HOST_DEVICE inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// widen: stored -> arithmetic. narrow<T>: arithmetic -> stored, round to nearest even.
// On the CPU they are branch-free integer code, which compilers vectorise for any instruction set.
HOST_DEVICE inline double widen(double value) { return value; }
HOST_DEVICE inline float widen(float value) { return value; }

HOST_DEVICE inline float widen(BFloat16 value) { return bit_cast<float>(uint32_t{value.bits} << 16); }

HOST_DEVICE inline float widen(Half value) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(value.bits));
#else
  const uint32_t magnitude = uint32_t{value.bits} & 0x7fffu;
  const uint32_t normal = (magnitude << 13) + 0x38000000u;  // moves the exponent's bias from 15 to 127
  // 2^-14 + x has half's subnormal x as its fraction; no float32 on the way is subnormal, so flushing them is harmless.
  const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>((magnitude << 13) + 0x38800000u) - 0x1p-14f);
  const uint32_t finite = magnitude < 0x400u ? subnormal : normal;
  const uint32_t special = magnitude << 13 | 0x7f800000u;  // infinity and NaN
  const uint32_t sign = (uint32_t{value.bits} & 0x8000u) << 16;
  return bit_cast<float>((magnitude >= 0x7c00u ? special : finite) | sign);
#endif
}

template <class T>
HOST_DEVICE inline T narrow(Accumulate<T> value) {
  return value;
}

template <>
HOST_DEVICE inline BFloat16 narrow<BFloat16>(float value) {
#ifdef __CUDA_ARCH__
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return {static_cast<uint16_t>(is_nan ? 0x7fc0u : rounded)};
#endif
}

template <>
HOST_DEVICE inline Half narrow<Half>(float value) {
#ifdef __CUDA_ARCH__
  return {__half_as_ushort(__float2half_rn(value))};
#else
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  // Adding 0.5 aligns a value below 2^-14 with half's subnormal spacing; the adder does the rounding.
  const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t overflow = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const uint32_t result = magnitude >= 0x47800000u ? overflow : finite;
  return {static_cast<uint16_t>(result | (bits >> 16 & 0x8000u))};
#endif
}

// Square root and quotient on the way to a stored T. For 16-bit types a GPU approximates them, with an error of a few
// units of float32, of which a unit of T has 2^13 or more: exact ones take some 20 instructions more for each element.
// Divisors are below 2^126.
template <class T>
HOST_DEVICE inline Accumulate<T> square_root(Accumulate<T> value) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == 2) {
    float root;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(value));
    return root;
  }
#endif
  return std::sqrt(value);
}

template <class T>
HOST_DEVICE inline Accumulate<T> quotient(Accumulate<T> dividend, Accumulate<T> divisor) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == 2) return __fdividef(dividend, divisor);
#endif
  return dividend / divisor;
}

}  // namespace wgan_fast
