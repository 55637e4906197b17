// The operators of smooth activations, called through the dispatcher, and their autograd nodes.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

namespace wgan_fast {

at::Tensor dispatch_smooth_activation(const at::Tensor& x, c10::string_view kind, at::ArrayRef<double> parameters);
void dispatch_smooth_activation_(const at::Tensor& x, c10::string_view kind, at::ArrayRef<double> parameters);

// Whether the node is the backward of one of these operators.
bool is_smooth_activation(const torch::autograd::Node& node);

}  // namespace wgan_fast
