// Linear layers, convolutions and PReLU of a critic inside a penalty, without dead work in double backward;
// normalisation with fused derivatives.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <optional>
#include <tuple>
#include <vector>

namespace wgan_fast {

using at::Tensor;
using torch::autograd::Node;

// Each takes the arguments of PyTorch's function of that name and returns the same numbers; nullopt means: call
// PyTorch's.
std::optional<Tensor> linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias);
std::optional<Tensor> convolution(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                                  const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                                  const std::vector<int64_t>& dilation, bool transposed,
                                  const std::vector<int64_t>& output_padding, int64_t groups);
std::optional<Tensor> prelu(const Tensor& input, const Tensor& weight);

// Normalisation by the statistics of rows, as the operator of this name. Returns y and the statistics.
std::optional<std::tuple<Tensor, Tensor>> normalization(const Tensor& input, const std::optional<Tensor>& weight,
                                                        const std::optional<Tensor>& bias,
                                                        const std::vector<int64_t>& shape, double eps, bool centered);

// Whether layers and activations can be replaced for this tensor: a dense tensor of a type and device that the kernels
// support, not of a subclass, outside of torch.func transforms and saved-tensor hooks.
bool is_plain(const Tensor& tensor);

// Whether the node is the backward of one of these layers, or of prelu.
bool is_layer(const Node& node);
bool is_prelu(const Node& node);

// The bias of such a layer, shaped so that it broadcasts to the output; undefined without one.
Tensor layer_bias(Node& layer);

// Frees the input that a layer saved. Computing the weight's gradient afterwards raises an error.
void release_input(Node& layer);

}  // namespace wgan_fast
