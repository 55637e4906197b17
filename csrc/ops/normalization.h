// The operators of normalisation by the statistics of a row, called through the dispatcher, and their autograd nodes.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <optional>
#include <tuple>

namespace wgan_fast {

// shape: groups, channels of a group, inner elements of a channel. Returns y and the statistics.
std::tuple<at::Tensor, at::Tensor> dispatch_normalization(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                                                          const std::optional<at::Tensor>& bias, at::IntArrayRef shape,
                                                          double eps, bool centered);

// Whether the node is the backward of one of these operators.
bool is_normalization(const torch::autograd::Node& node);

}  // namespace wgan_fast
