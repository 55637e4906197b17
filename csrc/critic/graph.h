// The autograd graph of a critic's forward, from the scores to the points, and of the scores' gradient at the points.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <unordered_set>
#include <vector>

namespace wgan_fast {

using at::Tensor;
using torch::autograd::Node;

class CriticGraph {
 public:
  CriticGraph(const Tensor& scores, const Tensor& points);

  // Whether the gradient varies smoothly with the points; false for piecewise-linear critics.
  bool curved() const { return curved_; }

  // Whether a part of the critic was compiled: PyTorch has no second derivative of it.
  bool compiled() const { return compiled_; }

  // Frees the inputs that the layers saved, unless the critic is curved: only a derivative through curvature needs
  // them.
  void let_go_of_inputs();

  // `gradient`, that of the scores at the points, without the edges along which its derivative would compute unused
  // values. This changes the graph: it cuts edges that carry only zeros, and edges that lead to the points alone.
  Tensor without_dead_work(const Tensor& gradient);

 private:
  void collect_leaves(Node* root, std::unordered_set<Node*>& visited);
  std::unordered_set<Node*> surely_reached(Node* root) const;

  Tensor scores_;  // keeps the nodes alive
  Node* points_;
  std::unordered_set<Node*> forward_, on_path_;
  std::vector<Node*> layers_;              // on the path, reached through their input
  std::vector<Tensor> below_activations_;  // leaves that PyTorch's zeros reach
  bool curved_ = false, compiled_ = false;
};

}  // namespace wgan_fast
