// Calls each CPU kernel over COUNT elements and over twice as many, and has Callgrind write down the instructions of
// each call under "<kernel> <type> <elements>".
#include <valgrind/callgrind.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/clip_weights.h"
#include "kernels/gradient_norm_penalty.h"
#include "kernels/instruction_set.h"
#include "kernels/interpolate.h"
#include "kernels/piecewise_linear.h"
#include "kernels/rmsprop.h"

using namespace wgan_fast;

namespace {

constexpr int64_t COUNT = 4096;
constexpr int64_t LENGTH = 1024;  // of a row

template <class Call>
void count(const std::string& kernel, Call call) {
  call(COUNT);  // the loader binds what a first call needs
  for (const int64_t elements : {COUNT, 2 * COUNT}) {
    const std::string name = kernel + ' ' + std::to_string(elements);
    CALLGRIND_ZERO_STATS;
    call(elements);
    CALLGRIND_DUMP_STATS_AT(name.c_str());
  }
}

template <class T>
void count_kernels(const std::string& type) {
  using A = Accumulate<T>;
  const T one = narrow<T>(A(1));
  std::vector<T> x(2 * COUNT, one), y(2 * COUNT, one), out(2 * COUNT, one);
  std::vector<A> of_row(2 * COUNT / LENGTH, A(2));
  std::vector<uint8_t> mask(mask_bytes(2 * COUNT));
  const A grad_penalty = 1;
  const NormPenalty penalty{10, 1, 2, false};
  const PiecewiseLinear<A> leaky_relu{A(0.2), A(0), A(NAN)};

  count("interpolate " + type,
        [&](int64_t n) { interpolate_cpu(x.data(), y.data(), of_row.data(), out.data(), LENGTH, 0, n); });
  count("sums_of_squares " + type, [&](int64_t n) {
    const Segments segments = segments_cpu(n / LENGTH, LENGTH);
    sums_of_squares_cpu(x.data(), of_row.data(), segments, 0, segments.count());
  });
  count("gradient_norm_penalty_backward " + type, [&](int64_t n) {
    gradient_norm_penalty_backward_cpu(&grad_penalty, x.data(), of_row.data(), out.data(), n / LENGTH, LENGTH, penalty,
                                       0, n);
  });
  count("piecewise_linear " + type,
        [&](int64_t n) { piecewise_linear_cpu(x.data(), out.data(), mask.data(), leaky_relu, 0, n); });
  count("apply_mask " + type, [&](int64_t n) { apply_mask_cpu(x.data(), mask.data(), out.data(), A(0.2), 0, n); });
  count("clip_weights " + type,
        [&](int64_t n) { clip_weights_cpu({out.data(), n, Scalar<T>::dtype, Layout{1, {n}, {1}}}, 0.01, 0, n); });
  for (const double weight_decay : {0.0, 0.1}) {
    const RmspropStep step{
        {1e-3, nullptr, false}, {1, nullptr, false}, {0, nullptr, false}, 0.99, 1e-8, weight_decay, INFINITY, false};
    count((weight_decay == 0 ? "rmsprop " : "rmsprop_with_decay ") + type,
          [&](int64_t n) { rmsprop_cpu({out.data(), x.data(), y.data(), n, Scalar<T>::dtype}, step, 0, n); });
  }
}

// Over the sums of rows, which have the type of the arithmetic.
template <class A>
void count_norm_penalty(const std::string& type) {
  std::vector<A> norms(2 * COUNT, A(2));
  std::vector<double> block_penalties(2 * COUNT);
  count("norms " + type, [&](int64_t rows) {
    norms_cpu<A>(nullptr, norms.data(), block_penalties.data(), segments_cpu(rows, 1), NormPenalty{10, 1, 2, false}, 0,
                 (rows + ROWS_EACH - 1) / ROWS_EACH);
  });
}

}  // namespace

int main() {
  std::puts(instruction_set());
  count_kernels<Half>("float16");
  count_kernels<BFloat16>("bfloat16");
  count_kernels<float>("float32");
  count_kernels<double>("float64");
  count_norm_penalty<float>("float32");
  count_norm_penalty<double>("float64");
}
