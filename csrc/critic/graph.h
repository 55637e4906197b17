// What a critic's forward consists of inside a penalty.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <optional>
#include <tuple>
#include <unordered_set>
#include <vector>

namespace wgan_fast {

using at::Tensor;
using torch::autograd::Node;

// Layers and activations of a critic that leave nothing dead for the second derivative. Each gives None for what it
// does not know, and PyTorch's own then serves, with the same numbers. layers.cpp
std::optional<Tensor> linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias);
std::optional<Tensor> convolution(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                                  const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                                  const std::vector<int64_t>& dilation, bool transposed,
                                  const std::vector<int64_t>& output_padding, int64_t groups);
std::optional<Tensor> prelu(const Tensor& input, const Tensor& weight);
// Tensors on which an operator can be replaced: no subclass, no transform, no hooks on what is saved.
bool is_plain(const Tensor& tensor);
bool is_layer(const Node& node);
bool is_prelu(const Node& node);
void let_go_of_input(Node& layer);

// piecewise_linear.cpp
std::optional<Tensor> activation(const Tensor& input, double closed_slope, double lower, double upper, bool inplace);
std::tuple<Tensor, Tensor> dispatch_piecewise_linear(const Tensor& input, double closed_slope, double lower,
                                                     double upper);
Tensor dispatch_gate(const Tensor& input, const Tensor& gates, double closed_slope, at::IntArrayRef stride);
bool is_piecewise_linear(const Node& node);

// critic_graph.cpp: from the points to the critic's scores.
class CriticGraph {
 public:
  CriticGraph(const Tensor& scores, const Tensor& points);

  // Whether the gradient at the points moves with the points, other than by jumps.
  bool curved() const { return curved_; }

  // Whether a part of the critic was compiled, which has no second derivative in PyTorch.
  bool compiled() const { return compiled_; }

  // The layers' inputs are needed for nothing but a derivative through curvature; where there is none, they go.
  void let_go_of_inputs();

  // `gradient`, of the scores at the points, cut free of everything that its derivative would compute for nobody. This
  // changes the graph: edges that carry only zeros go, and those that lead to nothing but the points.
  Tensor without_dead_work(const Tensor& gradient);

 private:
  void collect_leaves(Node* root, std::unordered_set<Node*>& visited);
  std::unordered_set<Node*> surely_reached(Node* root) const;

  Tensor scores_;  // keeps the nodes alive
  Node* points_;
  std::unordered_set<Node*> forward_, on_path_;
  std::vector<Node*> layers_;
  std::vector<Tensor> below_activations_;
  bool curved_ = false, compiled_ = false;
};

}  // namespace wgan_fast
