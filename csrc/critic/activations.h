// Activations of a critic inside a penalty: piecewise-linear ones without dead work in double backward, smooth ones
// with fused derivatives.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

namespace wgan_fast {

using at::Tensor;

// Each takes the arguments of PyTorch's function of that name and returns the same numbers; nullopt means: call
// PyTorch's. A trailing underscore: in place.
std::optional<Tensor> relu(const Tensor& input, bool inplace);
std::optional<Tensor> relu_(const Tensor& input);
std::optional<Tensor> relu6(const Tensor& input, bool inplace);
std::optional<Tensor> relu6_(const Tensor& input);
std::optional<Tensor> leaky_relu(const Tensor& input, double negative_slope, bool inplace);
std::optional<Tensor> leaky_relu_(const Tensor& input, double negative_slope);
std::optional<Tensor> hardtanh(const Tensor& input, double min_val, double max_val, bool inplace);
std::optional<Tensor> hardtanh_(const Tensor& input, double min_val, double max_val);

// The operator smooth_activation.
std::optional<Tensor> smooth_activation(const Tensor& input, const std::string& kind,
                                        const std::vector<double>& parameters, bool inplace);

}  // namespace wgan_fast
