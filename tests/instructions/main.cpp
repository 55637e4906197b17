// Calls each CPU kernel over COUNT elements and over twice as many, and has Callgrind write down the instructions of
// each call under "<kernel> <type> <elements>".
#include <valgrind/callgrind.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "kernels/clip_weights.h"
#include "kernels/gradient_norm_penalty.h"
#include "kernels/instruction_set.h"
#include "kernels/interpolate.h"
#include "kernels/nonfinite.h"
#include "kernels/normalization.h"
#include "kernels/piecewise_linear.h"
#include "kernels/rmsprop.h"
#include "kernels/smooth_activation.h"

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
  count("nonfinite " + type, [&](int64_t n) { nonfinite_cpu({x.data(), n, Scalar<T>::dtype}, 0, n); });
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

constexpr std::pair<const char*, SmoothKind> SMOOTH[] = {
    {"silu", SmoothKind::silu},
    {"gelu", SmoothKind::gelu},
    {"gelu_tanh", SmoothKind::gelu_tanh},
    {"tanh", SmoothKind::tanh},
    {"sigmoid", SmoothKind::sigmoid},
    {"softplus", SmoothKind::softplus},
    {"elu", SmoothKind::elu},
    {"elu_of_output", SmoothKind::elu_of_output},
    {"mish", SmoothKind::mish},
    {"logsigmoid", SmoothKind::logsigmoid},
    {"softsign", SmoothKind::softsign},
};

// Not of float64, whose elementary functions are the C library's.
template <class T>
void count_smooth(const std::string& type) {
  const T one = narrow<T>(1.0f);
  std::vector<T> x(2 * COUNT, one), grad(2 * COUNT, one), out(2 * COUNT), z_out(2 * COUNT);
  for (const auto& [name, kind] : SMOOTH) {
    const SmoothActivation f{kind, 1, kind == SmoothKind::softplus ? 20.0 : 1.0, 1};
    count(name + (' ' + type), [&](int64_t n) { smooth_activation_cpu(x.data(), out.data(), f, 0, n); });
    count(name + ("_backward " + type),
          [&](int64_t n) { smooth_activation_backward_cpu(grad.data(), x.data(), out.data(), f, 0, 0, n); });
    count(name + ("_double_backward " + type), [&](int64_t n) {
      smooth_activation_double_backward_cpu(grad.data(), grad.data(), x.data(), out.data(), z_out.data(), f, 0, n);
    });
  }
}

// Rows with a weight for each element (layer_), and with one for each run of RUN elements (group_).
template <class T>
void count_normalization(const std::string& type) {
  using A = Accumulate<T>;
  constexpr int64_t RUN = 64;
  std::vector<T> x(2 * COUNT), grad(2 * COUNT, narrow<T>(A(1))), out(2 * COUNT), out_x(2 * COUNT);
  for (size_t i = 0; i < x.size(); ++i) x[i] = narrow<T>(A(i % 5));
  std::vector<T> weight(LENGTH, narrow<T>(A(1)));
  std::vector<RowStatistics<A>> statistics(2 * COUNT / LENGTH);
  std::vector<A> of_weight(LENGTH), of_bias(LENGTH);
  for (const bool of_elements : {true, false}) {
    const std::string name = of_elements ? "layer_" : "group_";
    const Rows rows{1, of_elements ? LENGTH : LENGTH / RUN, of_elements ? 1 : RUN, true};
    count(name + "normalization " + type, [&](int64_t n) {
      normalization_cpu(x.data(), weight.data(), weight.data(), out.data(), statistics.data(), rows, 1e-5, 0,
                        n / LENGTH);
    });
    count(name + "normalization_backward " + type, [&](int64_t n) {
      normalization_backward_cpu(grad.data(), x.data(), statistics.data(), weight.data(), out.data(), of_weight.data(),
                                 of_bias.data(), rows, 0, n / LENGTH);
    });
    count(name + "normalization_double_backward " + type, [&](int64_t n) {
      normalization_double_backward_cpu(grad.data(), grad.data(), x.data(), statistics.data(), weight.data(),
                                        out.data(), out_x.data(), of_weight.data(), rows, 0, n / LENGTH);
    });
  }
}

}  // namespace

int main() {
  std::puts(instruction_set());
  count_kernels<Half>("float16");
  count_kernels<BFloat16>("bfloat16");
  count_kernels<float>("float32");
  count_kernels<double>("float64");
  count_smooth<Half>("float16");
  count_smooth<BFloat16>("bfloat16");
  count_smooth<float>("float32");
  count_normalization<Half>("float16");
  count_normalization<BFloat16>("bfloat16");
  count_normalization<float>("float32");
  count_normalization<double>("float64");
  count_norm_penalty<float>("float32");
  count_norm_penalty<double>("float64");
}
