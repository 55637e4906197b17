#pragma GCC diagnostic ignored "-Wpsabi"  // no vector crosses a call: everything is inlined

#include "normalization.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "instruction_set.h"

#define INLINE __attribute__((always_inline)) inline  // to be compiled for the caller's instruction set

namespace wgan_fast {
namespace {

// Vectors of one size for every instruction set, which makes two or four registers of one where it has shorter ones:
// sums have the same order everywhere.
template <class A>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(64)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(64)));
};
template <class A>
using Vector = typename VectorOf<A>::type;
template <class A>
constexpr int64_t WIDTH = 64 / sizeof(A);

// The first `count` numbers; the others are `fill`.
template <class T, class A = Accumulate<T>>
INLINE Vector<A> load(const T* from, int64_t count, A fill = 0) {
  Vector<A> result;
  if constexpr (std::is_same_v<T, A>) {
    if (count == WIDTH<A>) {
      std::memcpy(&result, from, sizeof result);
      return result;
    }
  }
  A numbers[WIDTH<A>];
  if (count == WIDTH<A>) {
#pragma GCC unroll 1  // a loop is vectorised; unrolled first, conversions of float16 are not
    for (int64_t i = 0; i < WIDTH<A>; ++i) numbers[i] = widen(from[i]);
  } else {
    for (int64_t i = 0; i < WIDTH<A>; ++i) numbers[i] = fill;
    for (int64_t i = 0; i < count; ++i) numbers[i] = widen(from[i]);
  }
  std::memcpy(&result, numbers, sizeof result);
  return result;
}

template <class T, class A = Accumulate<T>>
INLINE void store(T* to, const Vector<A>& vector, int64_t count) {
  if constexpr (std::is_same_v<T, A>) {
    if (count == WIDTH<A>) {
      std::memcpy(to, &vector, sizeof vector);
      return;
    }
  }
  A numbers[WIDTH<A>];
  std::memcpy(numbers, &vector, sizeof vector);
  if (count == WIDTH<A>) {
    for (int64_t i = 0; i < WIDTH<A>; ++i) to[i] = narrow<T>(numbers[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = narrow<T>(numbers[i]);
  }
}

template <class A>
INLINE A sum_of(const Vector<A>& vector) {
  A numbers[WIDTH<A>];
  std::memcpy(numbers, &vector, sizeof vector);
  for (int64_t width = WIDTH<A> / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; ++i) numbers[i] += numbers[i + width];
  }
  return numbers[0];
}

// use(first element, number of elements) for each vector of a run. The number is known at compile time but at its end.
template <class A, class Use>
INLINE void for_each_vector(int64_t length, Use&& use) {
  int64_t i = 0;
  for (; i + WIDTH<A> <= length; i += WIDTH<A>) use(i, WIDTH<A>);
  if (i < length) use(i, length - i);
}

// Sums over a row. After this many vectors they go on in float64, so that rounding does not grow with the row.
constexpr int64_t SUMMED_IN_VECTORS = 256;

template <class A, int COUNT>
struct Sums {
  Vector<A> parts[COUNT] = {};
  double totals[COUNT] = {};
  int64_t vectors = 0;

  INLINE void count() {
    if (++vectors == SUMMED_IN_VECTORS) flush();
  }
  INLINE void flush() {
    for (int c = 0; c < COUNT; ++c) {
      totals[c] += sum_of<A>(parts[c]);
      parts[c] = Vector<A>{};
    }
    vectors = 0;
  }
};

// A row's runs of elements that share a weight. PER_ELEMENT: one run, and a weight for each element.
template <class T, bool PER_ELEMENT>
struct Runs {
  using A = Accumulate<T>;
  int64_t count, length;

  // The weights of elements i.. of run k
  INLINE Vector<A> weights(const T* weight, int64_t k, int64_t i, int64_t n) const {
    if constexpr (PER_ELEMENT) {
      return load(weight + i, n);
    } else {
      return Vector<A>{} + widen(weight[k]);
    }
  }
};

// Adds the terms of a run's elements to the gradients of its weight.
template <class A, bool PER_ELEMENT>
struct WeightSum {
  A* sums;  // null: nothing is summed
  Vector<A> run;

  INLINE void begin() { run = Vector<A>{}; }
  INLINE void add(const Vector<A>& terms, int64_t i, int64_t n) {
    if (!sums) return;
    if constexpr (PER_ELEMENT) {
      store(sums + i, load(sums + i, n) + terms, n);
    } else {
      run += terms;
    }
  }
  INLINE void end(int64_t k) {
    if (!PER_ELEMENT && sums) sums[k] += sum_of<A>(run);
  }
};

template <class A>
INLINE A* offset(A* pointer, int64_t by) {
  return pointer ? pointer + by : pointer;
}

template <class T>
INLINE RowStatistics<Accumulate<T>> statistics_of(const T* x, int64_t length, bool centered, double eps) {
  using A = Accumulate<T>;
  A mean = 0;
  if (centered) {
    Sums<A, 1> sum;
    for_each_vector<A>(length, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
      sum.parts[0] += load(x + i, n);
      sum.count();
    });
    sum.flush();
    mean = static_cast<A>(sum.totals[0] / static_cast<double>(length));
  }
  Sums<A, 2> sums;
  for_each_vector<A>(length, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
    const Vector<A> d = load(x + i, n, mean) - mean;
    sums.parts[0] += d;
    sums.parts[1] += d * d;
    sums.count();
  });
  sums.flush();
  const double rest = centered ? sums.totals[0] / static_cast<double>(length) : 0.0;
  const double variance = sums.totals[1] / static_cast<double>(length) - rest * rest;
  return {mean, static_cast<A>(rest), static_cast<A>(1.0 / std::sqrt(variance + eps))};
}

template <bool PER_ELEMENT, class T>
INLINE void normalize(const T* x, const T* weight, const T* bias, T* y, RowStatistics<Accumulate<T>>* statistics,
                      const Rows& rows, double eps, Runs<T, PER_ELEMENT> runs, int64_t begin, int64_t end) {
  using A = Accumulate<T>;
  const int64_t length = rows.length();
  for (int64_t row = begin; row < end; ++row) {
    const RowStatistics<A> s = statistics_of(x + row * length, length, rows.centered, eps);
    statistics[row] = s;
    const int64_t first = row % rows.groups * rows.channels;
    const T *w = offset(weight, first), *b = offset(bias, first);
    for (int64_t k = 0; k < runs.count; ++k) {
      const int64_t start = row * length + k * runs.length;
      for_each_vector<A>(runs.length, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
        Vector<A> value = normalized(load(x + start + i, n), s);
        if (w) value *= runs.weights(w, k, i, n);
        if (b) value += runs.weights(b, k, i, n);
        store(y + start + i, value, n);
      });
    }
  }
}

template <bool PER_ELEMENT, class T>
INLINE void differentiate(const T* grad, const T* x, const RowStatistics<Accumulate<T>>* statistics, const T* weight,
                          T* grad_x, Accumulate<T>* grad_weight, Accumulate<T>* grad_bias, const Rows& rows,
                          Runs<T, PER_ELEMENT> runs, int64_t begin, int64_t end) {
  using A = Accumulate<T>;
  const int64_t length = rows.length();
  for (int64_t row = begin; row < end; ++row) {
    const RowStatistics<A> s = statistics[row];
    const int64_t first = row % rows.groups * rows.channels;
    const T* w = offset(weight, first);
    WeightSum<A, PER_ELEMENT> of_weight{offset(grad_weight, first), {}}, of_bias{offset(grad_bias, first), {}};
    Sums<A, 2> sums;
    for (int64_t k = 0; k < runs.count; ++k) {
      const int64_t start = row * length + k * runs.length;
      of_weight.begin();
      of_bias.begin();
      for_each_vector<A>(runs.length, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
        const Vector<A> g = load(grad + start + i, n), z = normalized(load(x + start + i, n), s);
        const Vector<A> gz = g * z;
        const Vector<A> scale = w ? runs.weights(w, k, i, n) : Vector<A>{} + A(1);
        sums.parts[0] += g * scale;
        sums.parts[1] += gz * scale;
        of_weight.add(gz, i, n);
        of_bias.add(g, i, n);
        sums.count();
      });
      of_weight.end(k);
      of_bias.end(k);
    }
    if (!grad_x) continue;
    sums.flush();
    const A a = rows.centered ? static_cast<A>(sums.totals[0] / static_cast<double>(length)) : A(0);
    const A c = static_cast<A>(sums.totals[1] / static_cast<double>(length));
    for (int64_t k = 0; k < runs.count; ++k) {
      const int64_t start = row * length + k * runs.length;
      for_each_vector<A>(runs.length, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
        Vector<A> h = load(grad + start + i, n);
        if (w) h *= runs.weights(w, k, i, n);
        store(grad_x + start + i, first_derivative(h, normalized(load(x + start + i, n), s), a, c, s.r), n);
      });
    }
  }
}

template <bool PER_ELEMENT, class T>
INLINE void differentiate_twice(const T* grad_grad, const T* grad, const T* x,
                                const RowStatistics<Accumulate<T>>* statistics, const T* weight, T* grad_grad_out,
                                T* grad_x, Accumulate<T>* grad_weight, const Rows& rows, Runs<T, PER_ELEMENT> runs,
                                int64_t begin, int64_t end) {
  using A = Accumulate<T>;
  const int64_t length = rows.length();
  for (int64_t row = begin; row < end; ++row) {
    const RowStatistics<A> stats = statistics[row];
    const int64_t first = row % rows.groups * rows.channels;
    const T* w = offset(weight, first);
    Sums<A, 5> sums;
    for (int64_t k = 0; k < runs.count; ++k) {
      const int64_t start = row * length + k * runs.length;
      for_each_vector<A>(runs.length, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
        const Vector<A> u = load(grad_grad + start + i, n), z = normalized(load(x + start + i, n), stats);
        Vector<A> h = load(grad + start + i, n);
        if (w) h *= runs.weights(w, k, i, n);
        sums.parts[0] += u;
        sums.parts[1] += u * z;
        sums.parts[2] += h;
        sums.parts[3] += h * z;
        sums.parts[4] += u * h;
        sums.count();
      });
    }
    sums.flush();
    double means[5];
    for (int m = 0; m < 5; ++m) means[m] = sums.totals[m] / static_cast<double>(length);
    const SecondDerivative<A> second(means, stats.r, rows.centered);
    WeightSum<A, PER_ELEMENT> of_weight{offset(grad_weight, first), {}};
    for (int64_t k = 0; k < runs.count; ++k) {
      const int64_t start = row * length + k * runs.length;
      of_weight.begin();
      for_each_vector<A>(runs.length, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
        const Vector<A> u = load(grad_grad + start + i, n), z = normalized(load(x + start + i, n), stats);
        const Vector<A> g = load(grad + start + i, n);
        const Vector<A> scale = w ? runs.weights(w, k, i, n) : Vector<A>{} + A(1);
        const Vector<A> q = second.q(u, z);
        store(grad_grad_out + start + i, q * scale, n);
        store(grad_x + start + i, second.of_x(u, g * scale, z), n);
        of_weight.add(q * g, i, n);
      });
      of_weight.end(k);
    }
  }
}

// Calls use(runs) with the runs of a row; without weights it is one run. Each call is compiled for itself, so there are
// two.
template <class T, class Use>
INLINE void dispatch_runs(const Rows& rows, bool weights, Use&& use) {
  if (weights && rows.inner == 1) {
    use(Runs<T, true>{1, rows.channels});
  } else {
    use(Runs<T, false>{weights ? rows.channels : 1, weights ? rows.inner : rows.length()});
  }
}

}  // namespace

template <class T>
INSTRUCTION_SET_CLONES void normalization_cpu(const T* x, const T* weight, const T* bias, T* y,
                                              RowStatistics<Accumulate<T>>* statistics, Rows rows, double eps,
                                              int64_t begin, int64_t end) {
  dispatch_runs<T>(rows, weight || bias, [&](auto runs) __attribute__((always_inline)) {
    normalize(x, weight, bias, y, statistics, rows, eps, runs, begin, end);
  });
}

template <class T>
INSTRUCTION_SET_CLONES void normalization_backward_cpu(const T* grad, const T* x,
                                                       const RowStatistics<Accumulate<T>>* statistics, const T* weight,
                                                       T* grad_x, Accumulate<T>* grad_weight, Accumulate<T>* grad_bias,
                                                       Rows rows, int64_t begin, int64_t end) {
  dispatch_runs<T>(rows, weight || grad_weight || grad_bias, [&](auto runs) __attribute__((always_inline)) {
    differentiate(grad, x, statistics, weight, grad_x, grad_weight, grad_bias, rows, runs, begin, end);
  });
}

template <class T>
INSTRUCTION_SET_CLONES void normalization_double_backward_cpu(const T* grad_grad, const T* grad, const T* x,
                                                              const RowStatistics<Accumulate<T>>* statistics,
                                                              const T* weight, T* grad_grad_out, T* grad_x,
                                                              Accumulate<T>* grad_weight, Rows rows, int64_t begin,
                                                              int64_t end) {
  dispatch_runs<T>(rows, weight || grad_weight, [&](auto runs) __attribute__((always_inline)) {
    differentiate_twice(grad_grad, grad, x, statistics, weight, grad_grad_out, grad_x, grad_weight, rows, runs, begin,
                        end);
  });
}

#define INSTANTIATE(T)                                                                                               \
  template void normalization_cpu<T>(const T*, const T*, const T*, T*, RowStatistics<Accumulate<T>>*, Rows, double,  \
                                     int64_t, int64_t);                                                              \
  template void normalization_backward_cpu<T>(const T*, const T*, const RowStatistics<Accumulate<T>>*, const T*, T*, \
                                              Accumulate<T>*, Accumulate<T>*, Rows, int64_t, int64_t);               \
  template void normalization_double_backward_cpu<T>(const T*, const T*, const T*,                                   \
                                                     const RowStatistics<Accumulate<T>>*, const T*, T*, T*,          \
                                                     Accumulate<T>*, Rows, int64_t, int64_t);
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace wgan_fast
