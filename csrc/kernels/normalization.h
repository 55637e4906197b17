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

// weight and bias may be null.
template <class T>
void normalization_cpu(const T* x,       // [rows, length]
                       const T* weight,  // [groups * channels]
                       const T* bias,    // [groups * channels]
                       T* y,             // [rows, length]
                       RowStatistics<Accumulate<T>>* statistics, Rows rows, double eps, int64_t begin, int64_t end);

// Results may be null. Those of weight and bias are added to what is there.
template <class T>
void normalization_backward_cpu(const T* grad, const T* x, const RowStatistics<Accumulate<T>>* statistics,
                                const T* weight, T* grad_x,
                                Accumulate<T>* grad_weight,  // [groups * channels]
                                Accumulate<T>* grad_bias,    // [groups * channels]
                                Rows rows, int64_t begin, int64_t end);

// grad_weight may be null.
template <class T>
void normalization_double_backward_cpu(const T* grad_grad, const T* grad, const T* x,
                                       const RowStatistics<Accumulate<T>>* statistics, const T* weight,
                                       T* grad_grad_out, T* grad_x, Accumulate<T>* grad_weight, Rows rows,
                                       int64_t begin, int64_t end);

}  // namespace wgan_fast
