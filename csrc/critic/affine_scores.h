// The scores of a critic that is affine in each sample, as a function of its input gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace wgan_fast {

// The value `scores`, of shape (B, 1, ..., 1), whose derivative is that of
//   f_i = sum over points <gradient_i, x_i> + sum over terms <signal_i, c>
// with the points x constant. A pass that starts at the gradients and the signals serves a function of the gradients
// and of the scores together: 4 forwards for the scores, the gradient and both derivatives.
at::Tensor affine_scores(const at::Tensor& scores, const std::vector<at::Tensor>& points,
                         const std::vector<at::Tensor>& gradients, const std::vector<at::Tensor>& signals,
                         const std::vector<at::Tensor>& terms);

// The term with 0 for what is infinite, as a mask below a maximum has it. Where the scores are finite, no signal
// reaches such an element, but its product with one would be NaN.
at::Tensor without_infinities(const at::Tensor& term);

}  // namespace wgan_fast
