#include "kernels/gradient_norm_penalty.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>
#include <numeric>
#include <tuple>
#include <vector>

#include "ops/tensors.h"

namespace wgan_fast {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Not for NaN and infinite numbers.
void check_formula(const NormPenalty& formula) {
  const auto check = [](const char* name, double number, double minimum) {
    TORCH_CHECK_VALUE(std::isfinite(number) && number >= minimum, name, ": expected a finite number of at least ",
                      minimum, ", got ", number);
  };
  check("weight", formula.weight, 0);
  check("target", formula.target, 0);
  check("power", formula.power, 2);
}

std::tuple<Tensor, Tensor> penalty_forward(const Tensor& gradient, double weight, double target, double power,
                                           bool one_sided) {
  check_batch(gradient, "gradient");
  TORCH_CHECK_VALUE(gradient.numel() > 0, "gradient: expected at least one element, got shape ", gradient.sizes());
  const NormPenalty formula{weight, target, power, one_sided};
  check_formula(formula);
  const c10::DeviceGuard guard(gradient.device());
  const Tensor rows = dense_rows(gradient);
  const auto options = rows.options().dtype(accumulate_type(rows.scalar_type()));
  const Tensor norms = at::empty({rows.size(0)}, options);
  const Tensor penalty = at::empty({}, options);
  dispatch_dtype(rows, [&](auto element) {
    using T = decltype(element);
    using A = Accumulate<T>;
    const T* g = data<T>(rows);
#ifdef WGAN_FAST_CUDA
    if (rows.is_cuda()) {
      const Segments segments = segments_cuda(rows.size(0), row_length(rows));
      const Tensor workspace = at::empty({workspace_size_cuda(segments)}, options);
      return gradient_norm_penalty_cuda(g, mutable_data<A>(workspace), mutable_data<A>(norms), mutable_data<A>(penalty),
                                        segments, formula, current_stream());
    }
#endif
    const Segments segments = segments_cpu(rows.size(0), row_length(rows));
    // With one segment per row, the sums are stored in place of the norms.
    const Tensor sums = segments.per_row == 1 ? norms : at::empty({segments.count()}, options);
    const int64_t elements_each = std::min(segments.length, segments.segment_length);
    at::parallel_for(0, segments.count(), GRAIN / elements_each + 1, [&](int64_t begin, int64_t end) {
      sums_of_squares_cpu(g, mutable_data<A>(sums), segments, begin, end);
    });
    std::vector<double> block_penalties((segments.rows + ROWS_EACH - 1) / ROWS_EACH);
    at::parallel_for(
        0, static_cast<int64_t>(block_penalties.size()), GRAIN / ROWS_EACH, [&](int64_t begin, int64_t end) {
          norms_cpu(data<A>(sums), mutable_data<A>(norms), block_penalties.data(), segments, formula, begin, end);
        });
    const double total = std::accumulate(block_penalties.begin(), block_penalties.end(), 0.0);
    *mutable_data<A>(penalty) = static_cast<A>(formula.weight * total / static_cast<double>(segments.rows));
  });
  return {penalty, norms};
}

Tensor penalty_backward(const Tensor& grad_penalty, const Tensor& gradient, const Tensor& norms, double weight,
                        double target, double power, bool one_sided) {
  check_batch(gradient, "gradient");
  check_row_values(norms, "norms", gradient, "gradient");
  TORCH_CHECK_VALUE(grad_penalty.dim() == 0 && grad_penalty.device() == gradient.device() &&
                        grad_penalty.scalar_type() == norms.scalar_type(),
                    "grad_penalty: expected a scalar of the device and type of norms");
  const c10::DeviceGuard guard(gradient.device());
  const Tensor rows = dense_rows(gradient);
  const Tensor norms_dense = norms.contiguous();
  const Tensor out = at::empty_like(rows);
  if (out.numel() == 0) return out;
  const NormPenalty formula{weight, target, power, one_sided};
  const int64_t length = row_length(rows);
  dispatch_dtype(rows, [&](auto element) {
    using T = decltype(element);
    using A = Accumulate<T>;
    const A* grad = data<A>(grad_penalty);
    const T* g = data<T>(rows);
    const A* n = data<A>(norms_dense);
    T* result = mutable_data<T>(out);
#ifdef WGAN_FAST_CUDA
    if (rows.is_cuda()) {
      return gradient_norm_penalty_backward_cuda(grad, g, n, result, rows.size(0), length, formula, current_stream());
    }
#endif
    at::parallel_for(0, rows.numel(), GRAIN, [&](int64_t begin, int64_t end) {
      gradient_norm_penalty_backward_cpu(grad, g, n, result, rows.size(0), length, formula, begin, end);
    });
  });
  return out;
}

void save(AutogradContext* context, const NormPenalty& formula) {
  context->saved_data["weight"] = formula.weight;
  context->saved_data["target"] = formula.target;
  context->saved_data["power"] = formula.power;
  context->saved_data["one_sided"] = formula.one_sided;
}

NormPenalty saved_formula(AutogradContext* context) {
  auto& saved = context->saved_data;
  return {saved["weight"].toDouble(), saved["target"].toDouble(), saved["power"].toDouble(),
          saved["one_sided"].toBool()};
}

Tensor dispatch_penalty_backward(const Tensor& grad_penalty, const Tensor& gradient, const Tensor& norms,
                                 const NormPenalty& formula) {
  static const auto op =
      find_operator<Tensor(const Tensor&, const Tensor&, const Tensor&, double, double, double, bool)>(
          "wgan_fast::gradient_norm_penalty_backward");
  return op.call(grad_penalty, gradient, norms, formula.weight, formula.target, formula.power, formula.one_sided);
}

// grad_gradient = grad_penalty * weight / B * s(n) * gradient, with s(n) = p'(n) / n.
class PenaltyBackward : public torch::autograd::Function<PenaltyBackward> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& grad_penalty, const Tensor& gradient,
                        const Tensor& norms, const NormPenalty& formula) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({grad_penalty, gradient});
    save(context, formula);
    return dispatch_penalty_backward(grad_penalty, gradient, norms, formula);
  }

  // Composed of PyTorch's operators, hence differentiable any number of times. With v the incoming gradient,
  //   grad_penalty receives  weight/B * sum_i s(n_i) <g_i, v_i>
  //   gradient receives      weight/B * grad_penalty * (s(n_i) v_i + s'(n_i) n_i <u_i, v_i> u_i),  u_i = g_i / n_i
  // With e = n - target and power k: s = k |e|^(k-2) e / n and s' = (k (k-1) |e|^(k-2) - s) / n.
  // Both are taken as 0 in rows where n_i = 0 or, if one-sided, n_i <= target. The exception: for target 0 and power 2
  // the penalty n^2 is smooth at 0, and s = 2.
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const Tensor& grad_penalty = saved[0];
    const Tensor& gradient = saved[1];
    const auto [weight, target, power, one_sided] = saved_formula(context);

    const auto batch = gradient.sym_size(0);
    const Tensor g = gradient.reshape_symint({batch, -1}).to(grad_penalty.scalar_type());
    const Tensor v = grads[0].reshape_symint({batch, -1}).to(grad_penalty.scalar_type());
    const Tensor squares = (g * g).sum(1, /*keepdim=*/true);
    const Tensor flat = squares <= (one_sided ? target * target : 0.0);
    const Tensor norms = squares.masked_fill(flat, 1.0).sqrt();
    const Tensor e = norms - target;
    const Tensor steepness = power * e.abs().pow(power - 2);
    const Tensor slope = steepness * e / norms;
    const Tensor bend = (power - 1) * steepness - slope;  // s' n
    const Tensor unit = g / norms;
    const Tensor along = (unit * v).sum(1, /*keepdim=*/true);

    const Tensor curve =
        slope.masked_fill(flat, target == 0 && power == 2 ? 2.0 : 0.0) * v + bend.masked_fill(flat, 0.0) * along * unit;
    const Tensor to_grad_penalty = weight * (slope.masked_fill(flat, 0.0) * norms * along).mean();
    const Tensor to_gradient = weight * (grad_penalty / at::Scalar(batch)) * curve;
    return {to_grad_penalty, to_gradient.to(gradient.scalar_type()).reshape_symint(gradient.sym_sizes()), Tensor(),
            Tensor()};
  }
};

Tensor penalty_backward_autograd(const Tensor& grad_penalty, const Tensor& gradient, const Tensor& norms, double weight,
                                 double target, double power, bool one_sided) {
  return PenaltyBackward::apply(grad_penalty, gradient, norms, NormPenalty{weight, target, power, one_sided});
}

// The norms are saved for the backward and returned for monitoring; only the penalty is differentiable.
class Penalty : public torch::autograd::Function<Penalty> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& gradient, const NormPenalty& formula) {
    static const auto op = find_operator<std::tuple<Tensor, Tensor>(const Tensor&, double, double, double, bool)>(
        "wgan_fast::gradient_norm_penalty");
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto [penalty, norms] = op.call(gradient, formula.weight, formula.target, formula.power, formula.one_sided);
    context->save_for_backward({gradient, norms});
    context->mark_non_differentiable({norms});
    save(context, formula);
    return {penalty, norms};
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    return {dispatch_penalty_backward(grads[0], saved[0], saved[1], saved_formula(context)), Tensor()};
  }
};

std::tuple<Tensor, Tensor> penalty_autograd(const Tensor& gradient, double weight, double target, double power,
                                            bool one_sided) {
  const variable_list outputs = Penalty::apply(gradient, NormPenalty{weight, target, power, one_sided});
  return {outputs[0], outputs[1]};
}

void implement(torch::Library& library) {
  library.impl("gradient_norm_penalty", penalty_forward);
  library.impl("gradient_norm_penalty_backward", penalty_backward);
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, library) { implement(library); }
#ifdef WGAN_FAST_CUDA
TORCH_LIBRARY_IMPL(wgan_fast, CUDA, library) { implement(library); }
#endif
TORCH_LIBRARY_IMPL(wgan_fast, Autograd, library) {
  library.impl("gradient_norm_penalty", penalty_autograd);
  library.impl("gradient_norm_penalty_backward", penalty_backward_autograd);
}

}  // namespace wgan_fast
