#include "critic/activations.h"

#include <ATen/autocast_mode.h>

#include <limits>

#include "critic/layers.h"
#include "ops/piecewise_linear.h"
#include "ops/smooth_activation.h"

namespace wgan_fast {
namespace {

constexpr double INFINITE = std::numeric_limits<double>::infinity();

std::optional<Tensor> activation(const Tensor& x, double negative_slope, double lower, double upper, bool inplace) {
  if (!is_plain(x) || !x.is_non_overlapping_and_dense() || lower > upper) return std::nullopt;
  if (!inplace) return std::get<0>(dispatch_piecewise_linear(x, negative_slope, lower, upper));
  dispatch_piecewise_linear_(x, negative_slope, lower, upper);
  return x;
}

}  // namespace

std::optional<Tensor> relu(const Tensor& input, bool inplace) { return activation(input, 0, 0, INFINITE, inplace); }

std::optional<Tensor> relu_(const Tensor& input) { return relu(input, true); }

std::optional<Tensor> relu6(const Tensor& input, bool inplace) { return activation(input, 0, 0, 6, inplace); }

std::optional<Tensor> relu6_(const Tensor& input) { return relu6(input, true); }

std::optional<Tensor> leaky_relu(const Tensor& input, double negative_slope, bool inplace) {
  return activation(input, negative_slope, 0, INFINITE, inplace);
}

std::optional<Tensor> leaky_relu_(const Tensor& input, double negative_slope) {
  return leaky_relu(input, negative_slope, true);
}

std::optional<Tensor> hardtanh(const Tensor& input, double min_val, double max_val, bool inplace) {
  return activation(input, 0, min_val, max_val, inplace);
}

std::optional<Tensor> hardtanh_(const Tensor& input, double min_val, double max_val) {
  return hardtanh(input, min_val, max_val, true);
}

// Under autocast PyTorch chooses a precision for each function.
std::optional<Tensor> smooth_activation(const Tensor& input, const std::string& kind,
                                        const std::vector<double>& parameters, bool inplace) {
  if (!is_plain(input) || !input.is_non_overlapping_and_dense() ||
      at::autocast::is_autocast_enabled(input.device().type())) {
    return std::nullopt;
  }
  if (!inplace) return dispatch_smooth_activation(input, kind, parameters);
  dispatch_smooth_activation_(input, kind, parameters);
  return input;
}

}  // namespace wgan_fast
