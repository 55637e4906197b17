// The operators piecewise_linear and apply_mask, called through the dispatcher, and their autograd nodes.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <tuple>

namespace wgan_fast {

std::tuple<at::Tensor, at::Tensor> dispatch_piecewise_linear(const at::Tensor& x, double negative_slope, double lower,
                                                             double upper);
at::Tensor dispatch_piecewise_linear_(const at::Tensor& x, double negative_slope, double lower, double upper);
at::Tensor dispatch_apply_mask(const at::Tensor& x, const at::Tensor& mask, double negative_slope,
                               at::IntArrayRef stride);

// Whether the node is the backward of one of these operators.
bool is_piecewise_linear(const torch::autograd::Node& node);

// Whether it is that of an activation with a bound that is not 0, as hardtanh has.
bool has_plateau(const torch::autograd::Node& node);

// The part of the output y of such an activation that does not come from its input: y where y is at a bound, else 0.
at::Tensor plateau_of(torch::autograd::Node& node, const at::Tensor& y);

}  // namespace wgan_fast
