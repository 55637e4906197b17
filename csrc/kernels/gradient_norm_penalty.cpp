#include "gradient_norm_penalty.h"

#include <algorithm>
#include <cmath>

#include "instruction_set.h"

namespace wgan_fast {
namespace {

constexpr int64_t SEGMENT = 16384;
constexpr int LANES = 32;  // independent sums, enough for the widest instruction set

// The sum of `term` over the values. Must be inlined to be compiled for the caller's instruction set.
template <class Sum, class T, class Term>
__attribute__((always_inline)) inline Sum sum_of(const T* __restrict values, int64_t count, const Term& term) {
  Sum total = 0;
  int64_t i = 0;
  if (count >= LANES) {
    Sum lanes[LANES] = {};
    for (; i + LANES <= count; i += LANES) {
      for (int lane = 0; lane < LANES; ++lane) lanes[lane] += term(values[i + lane]);
    }
    for (int lane = 0; lane < LANES; ++lane) total += lanes[lane];
  }
  for (; i < count; ++i) total += term(values[i]);
  return total;
}

}  // namespace

Segments segments_cpu(int64_t rows, int64_t length) {
  return {rows, length, SEGMENT, std::max<int64_t>(1, (length + SEGMENT - 1) / SEGMENT)};
}

template <class T>
INSTRUCTION_SET_CLONES void sums_of_squares_cpu(const T* __restrict gradient, Accumulate<T>* __restrict sums,
                                                Segments segments, int64_t begin, int64_t end) {
  int64_t row = begin / segments.per_row;
  int64_t start = begin % segments.per_row * segments.segment_length;
  for (int64_t segment = begin; segment < end; ++segment) {
    const int64_t stop = std::min(start + segments.segment_length, segments.length);
    sums[segment] = sum_of<Accumulate<T>>(gradient + row * segments.length + start, stop - start, [](T value) {
      const Accumulate<T> wide = widen(value);
      return wide * wide;
    });
    start = stop;
    if (start == segments.length) {
      start = 0;
      ++row;
    }
  }
}

template <class A>
INSTRUCTION_SET_CLONES void norms_cpu(const A* __restrict sums, A* __restrict norms, double* __restrict block_penalties,
                                      Segments segments, NormPenalty formula, int64_t begin, int64_t end) {
  const PowerOfExcess<A> power(formula);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * ROWS_EACH;
    const int64_t count = std::min(ROWS_EACH, segments.rows - first);
    if (segments.per_row == 1) {
      for (int64_t row = first; row < first + count; ++row) norms[row] = std::sqrt(norms[row]);
    } else {
      for (int64_t row = first; row < first + count; ++row) {
        A sum = 0;
        for (int64_t i = 0; i < segments.per_row; ++i) sum += sums[row * segments.per_row + i];
        norms[row] = std::sqrt(sum);
      }
    }
    const auto square = [&](A norm) -> double {  // vectorised: it calls no pow
      const A e = excess(norm, power);
      return e * e;
    };
    const auto any_power = [&](A norm) -> double { return norm_penalty(norm, power); };
    block_penalties[block] = formula.power == 2 ? sum_of<double>(norms + first, count, square)
                                                : sum_of<double>(norms + first, count, any_power);
  }
}

template <class T>
INSTRUCTION_SET_CLONES void gradient_norm_penalty_backward_cpu(const Accumulate<T>* __restrict grad_penalty,
                                                               const T* __restrict gradient,
                                                               const Accumulate<T>* __restrict norms, T* __restrict out,
                                                               int64_t rows, int64_t length, NormPenalty formula,
                                                               int64_t begin, int64_t end) {
  using A = Accumulate<T>;
  const A scale = *grad_penalty * static_cast<A>(formula.weight / static_cast<double>(rows));
  const PowerOfExcess<A> power(formula);
  int64_t row = begin / length;
  for (int64_t i = begin; i < end; ++row) {
    const int64_t row_end = std::min(end, (row + 1) * length);
    const A factor = scale * norm_penalty_slope(norms[row], power);
    for (; i < row_end; ++i) out[i] = narrow<T>(factor * widen(gradient[i]));
  }
}

#define INSTANTIATE(T)                                                                                          \
  template void sums_of_squares_cpu<T>(const T*, Accumulate<T>*, Segments, int64_t, int64_t);                   \
  template void gradient_norm_penalty_backward_cpu<T>(const Accumulate<T>*, const T*, const Accumulate<T>*, T*, \
                                                      int64_t, int64_t, NormPenalty, int64_t, int64_t);
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
INSTANTIATE(float)
INSTANTIATE(double)
template void norms_cpu<float>(const float*, float*, double*, Segments, NormPenalty, int64_t, int64_t);
template void norms_cpu<double>(const double*, double*, double*, Segments, NormPenalty, int64_t, int64_t);

}  // namespace wgan_fast
