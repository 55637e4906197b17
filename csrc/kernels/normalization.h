// Layer, RMS, group and instance normalisation: rows are normalised by their own statistics,
//   y = w x^ + b,  x^ = (x - m) r,  r = 1 / sqrt(v + eps),
// with mean m and variance v of the row; not centred, m = 0 and v is the mean square. Derivatives, by hand. Let mean()
// be that of a row of D elements, P t = t - mean(t) - x^ mean(t x^); not centred, the term mean(t) is absent. Then
//   d<t, x^>/dx = r P t,  dr/dx = -r^2 x^ / D.
// First derivative, for the gradient g of y, with h = w g:
//   dx = r P h,  dw = sum of g x^,  db = sum of g.
// Second derivative: of <u, dx> = r D (s - mean(u) a - p c) with s = mean(u h), a = mean(h), p = mean(u x^) and
// c = mean(h x^), where h does not depend on x:
//   with respect to g:  w q,  q = r P u
//   with respect to w:  sum of g q
//   with respect to x:  -r^2 (c (u - mean(u)) + p (h - a) + x^ (s - mean(u) a - 3 p c)).
// It takes one pass for the five means of a row, and one for the three results.
#pragma once

#include "scalar.h"

namespace wgan_fast {

// Row i holds the elements of group i % groups of a sample: `channels` runs of `inner` elements, each with one weight
// and one bias. Layer normalisation has one group and inner = 1.
struct Rows {
  int64_t groups, channels, inner;
  bool centered;

  int64_t length() const { return channels * inner; }
};

// What is kept of a row: the mean as the sum of two numbers, so that a large one loses nothing, and r.
template <class A>
struct RowStatistics {
  A mean, mean_rest, r;
};
constexpr int64_t STATISTICS = 3;

// The formulas for numbers, and for a CPU's vectors of them. A is the type of the numbers.
#define FORMULA __attribute__((always_inline)) HOST_DEVICE inline

// x^
template <class V, class A>
FORMULA V normalized(const V& x, const RowStatistics<A>& s) {
  return ((x - s.mean) - s.mean_rest) * s.r;
}

// r P h, with a = mean(h), which is 0 where rows are not centred, and c = mean(h x^). z is x^, here and below.
template <class V, class A>
FORMULA V first_derivative(const V& h, const V& z, A a, A c, A r) {
  return r * ((h - a) - z * c);
}

// The numbers of a row for the second derivative, from the means over it of u, u x^, h, h x^ and u h.
template <class A>
struct SecondDerivative {
  A r, mean_u, p, by_u, by_h, by_z, constant;

  template <class S>
  FORMULA SecondDerivative(const S (&means)[5], A r, bool centered) : r(r) {
    const S r2 = S(r) * r, mean = centered ? means[0] : S(0), along = means[1];
    const S a = centered ? means[2] : S(0), c = means[3], e = means[4] - mean * a - 3 * along * c;
    by_u = static_cast<A>(-r2 * c);
    by_h = static_cast<A>(-r2 * along);
    by_z = static_cast<A>(-r2 * e);
    constant = static_cast<A>(r2 * (c * mean + along * a));
    mean_u = static_cast<A>(mean);
    p = static_cast<A>(along);
  }

  template <class V>
  FORMULA V q(const V& u, const V& z) const {
    return first_derivative(u, z, mean_u, p, r);
  }
  template <class V>
  FORMULA V of_x(const V& u, const V& h, const V& z) const {
    return (by_u * u + by_h * h) + (by_z * z + constant);
  }
};

// weight and bias may be null.
template <class T>
void normalization_cpu(const T* x,       // [rows, length]
                       const T* weight,  // [groups * channels]
                       const T* bias,    // [groups * channels]
                       T* y,             // [rows, length]
                       RowStatistics<Accumulate<T>>* statistics, Rows rows, double eps, int64_t begin, int64_t end);

template <class T>
void normalization_cuda(const T* x, const T* weight, const T* bias, T* y, RowStatistics<Accumulate<T>>* statistics,
                        Rows rows, double eps, int64_t count, CUstream_st* stream);

// Results may be null. Those of weight and bias are added to what is there.
template <class T>
void normalization_backward_cpu(const T* grad, const T* x, const RowStatistics<Accumulate<T>>* statistics,
                                const T* weight, T* grad_x,
                                Accumulate<T>* grad_weight,  // [groups * channels]
                                Accumulate<T>* grad_bias,    // [groups * channels]
                                Rows rows, int64_t begin, int64_t end);

// On CUDA a sample has fewer than 2^31 elements, and sums over samples are written for each element of one:
// [parts, groups * channels * inner], still to be summed over parts and over the elements of a run.
constexpr int64_t SAMPLE_LIMIT_CUDA = int64_t{1} << 31;
int64_t normalization_parts_cuda(Rows rows, int64_t count);

template <class T>
void normalization_backward_cuda(const T* grad, const T* x, const RowStatistics<Accumulate<T>>* statistics,
                                 const T* weight, T* grad_x, Accumulate<T>* grad_weight, Accumulate<T>* grad_bias,
                                 Rows rows, int64_t count, CUstream_st* stream);

// grad_weight may be null.
template <class T>
void normalization_double_backward_cpu(const T* grad_grad, const T* grad, const T* x,
                                       const RowStatistics<Accumulate<T>>* statistics, const T* weight,
                                       T* grad_grad_out, T* grad_x, Accumulate<T>* grad_weight, Rows rows,
                                       int64_t begin, int64_t end);

// means_of_rows: [count, 2], where the gradient of the weight is wanted.
template <class T>
void normalization_double_backward_cuda(const T* grad_grad, const T* grad, const T* x,
                                        const RowStatistics<Accumulate<T>>* statistics, const T* weight,
                                        T* grad_grad_out, T* grad_x, Accumulate<T>* grad_weight,
                                        Accumulate<T>* means_of_rows, Rows rows, int64_t count, CUstream_st* stream);

}  // namespace wgan_fast
