#include "critic/affine_scores.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>

#include "ops/tensors.h"

namespace wgan_fast {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The B numbers, each repeated over the elements of its sample, so that they broadcast to `tensor`.
Tensor for_each_sample(const Tensor& numbers, const Tensor& tensor) {
  const int64_t batch = numbers.numel(), blocks = tensor.dim() == 0 ? 1 : tensor.size(0) / batch;
  std::vector<int64_t> sizes(tensor.dim(), 1);
  if (!sizes.empty()) sizes[0] = batch * blocks;
  return numbers.reshape({batch, 1}).expand({batch, blocks}).reshape(sizes);
}

// sum_i numbers_i signal_i, in the shape of the term. Summed first over the dimensions that the term does not have.
Tensor term_gradient(const Tensor& numbers, const Tensor& signal, const Tensor& term) {
  std::vector<int64_t> summed;
  const int64_t missing = signal.dim() - term.dim();
  for (int64_t d = 1; d < signal.dim(); ++d) {
    if (d < missing || term.size(d - missing) == 1) summed.push_back(d);
  }
  const auto type = accumulate_type(signal.scalar_type());
  const Tensor sums = summed.empty() ? signal.to(type) : signal.sum(summed, /*keepdim=*/true, type);
  const Tensor per_sample = for_each_sample(numbers, sums).to(type);
  const bool one_for_all_samples = sums.dim() > 0 && (missing > 0 || term.size(0) == 1);
  const Tensor total = one_for_all_samples  // a product needs no buffer
                           ? sums.reshape({sums.size(0), -1}).t().mv(per_sample.flatten())
                           : (per_sample * sums).sum_to_size(term.sizes());
  return total.reshape(term.sizes()).to(term.scalar_type());
}

class AffineScores : public torch::autograd::Function<AffineScores> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& scores, const at::TensorList& points,
                        const at::TensorList& /*gradients*/, const at::TensorList& signals,
                        const at::TensorList& terms) {
    context->set_materialize_grads(false);
    variable_list saved = points.vec();  // the gradients are like them, and need not be saved
    for (const auto& list : {signals, terms}) saved.insert(saved.end(), list.begin(), list.end());
    context->save_for_backward(saved);
    context->saved_data["points"] = static_cast<int64_t>(points.size());
    return scores.clone();
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const int64_t points = context->saved_data["points"].toInt();
    const int64_t terms = (static_cast<int64_t>(saved.size()) - points) / 2;
    variable_list result(1 + 2 * points + 2 * terms);  // scores, points, gradients, signals, terms
    if (!grads[0].defined()) return result;
    const Tensor& grad = grads[0];
    // The score's derivative with respect to `signal` is `other`, which broadcasts to it.
    const auto with_respect_to = [&](const Tensor& signal, const Tensor& other) {
      const Tensor product = (for_each_sample(grad, signal) * other).to(signal.scalar_type());
      // Autograd adds to a tensor in place, but not to a view.
      return product.sizes() == signal.sizes() ? product : product.expand(signal.sizes());
    };
    for (int64_t i = 0; i < points; ++i) {
      const int64_t gradient = 1 + points + i;
      if (context->needs_input_grad(gradient)) result[gradient] = with_respect_to(saved[i], saved[i]);
    }
    for (int64_t i = 0; i < terms; ++i) {
      const Tensor &signal = saved[points + i], &term = saved[points + terms + i];
      const int64_t of_signal = 1 + 2 * points + i, of_term = of_signal + terms;
      if (context->needs_input_grad(of_signal)) {
        // A leaf has none: a constant was copied without them, and a weight is finite.
        result[of_signal] = with_respect_to(signal, term.is_leaf() ? term : without_infinities(term));
      }
      if (context->needs_input_grad(of_term)) result[of_term] = term_gradient(grad, signal, term);
    }
    return result;
  }
};

}  // namespace

Tensor without_infinities(const Tensor& term) {
  return at::nan_to_num(term, std::numeric_limits<double>::quiet_NaN(), 0.0, 0.0);
}

Tensor affine_scores(const Tensor& scores, const std::vector<Tensor>& points, const std::vector<Tensor>& gradients,
                     const std::vector<Tensor>& signals, const std::vector<Tensor>& terms) {
  std::vector<Tensor> constant;
  for (const Tensor& point : points) constant.push_back(point.detach());
  return AffineScores::apply(scores, at::TensorList(constant), at::TensorList(gradients), at::TensorList(signals),
                             at::TensorList(terms));
}

}  // namespace wgan_fast
