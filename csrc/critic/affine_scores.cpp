#include "critic/affine_scores.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

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
  return (for_each_sample(numbers, sums) * sums).sum_to_size(term.sizes()).to(term.scalar_type());
}

class AffineScores : public torch::autograd::Function<AffineScores> {
 public:
  // The lists are one, with their lengths: points, gradients, signals, terms.
  static Tensor forward(AutogradContext* context, const Tensor& scores, int64_t points, int64_t terms,
                        const at::TensorList& tensors) {
    context->set_materialize_grads(false);
    context->save_for_backward(tensors.vec());
    context->saved_data["points"] = points;
    context->saved_data["terms"] = terms;
    return scores.clone();
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const int64_t points = context->saved_data["points"].toInt(), terms = context->saved_data["terms"].toInt();
    const auto tensors = context->get_saved_variables();
    constexpr int64_t before = 3;  // results for the scores and the two lengths
    variable_list result(before + tensors.size());
    const auto needs_grad = [&](int64_t i) { return context->needs_input_grad(1 + i); };  // counts tensors alone
    if (!grads[0].defined()) return result;
    const Tensor& grad = grads[0];
    // The score's derivative with respect to `signal` is `other`, which broadcasts to it.
    const auto with_respect_to = [&](const Tensor& signal, const Tensor& other) {
      return (for_each_sample(grad, signal) * other).to(signal.scalar_type()).expand(signal.sizes());
    };
    for (int64_t i = 0; i < points; ++i) {
      const int64_t gradient = points + i;
      if (needs_grad(gradient)) {
        result[before + gradient] = with_respect_to(tensors[gradient], tensors[i]);
      }
    }
    for (int64_t i = 0; i < terms; ++i) {
      const int64_t signal = 2 * points + i, term = signal + terms;
      if (needs_grad(signal)) {
        result[before + signal] = with_respect_to(tensors[signal], tensors[term]);
      }
      if (needs_grad(term)) {
        result[before + term] = term_gradient(grad, tensors[signal], tensors[term]);
      }
    }
    return result;
  }
};

}  // namespace

Tensor affine_scores(const Tensor& scores, const std::vector<Tensor>& points, const std::vector<Tensor>& gradients,
                     const std::vector<Tensor>& signals, const std::vector<Tensor>& terms) {
  std::vector<Tensor> tensors;
  for (const Tensor& point : points) tensors.push_back(point.detach());
  for (const auto* list : {&gradients, &signals, &terms}) tensors.insert(tensors.end(), list->begin(), list->end());
  return AffineScores::apply(scores, static_cast<int64_t>(points.size()), static_cast<int64_t>(terms.size()),
                             at::TensorList(tensors));
}

}  // namespace wgan_fast
