// The autograd graph of a critic's forward, from the scores to the points, and of the scores' gradient at the points.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/function.h>

#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace wgan_fast {

using at::Tensor;
using torch::autograd::Node;
using NodePointer = decltype(std::declval<Node&>().getptr());  // PyTorch 2.11 and 2.13 differ

// Whether a hook waits for the accumulation of the leaf's gradient.
bool accumulation_has_hooks(const Tensor& leaf);

class CriticGraph {
 public:
  explicit CriticGraph(const std::vector<Tensor>& points);

  // While the critic runs: `output` is the sum of factor * operand, or the operands' concatenation along `dim`, in the
  // order of its node's inputs. What does not come from the points is kept as a term. An operand is nullopt where its
  // value is not known any more.
  void note_sum(const Tensor& output, const std::vector<std::optional<Tensor>>& operands,
                const std::vector<double>& factors);
  void note_concatenation(const Tensor& output, const std::vector<Tensor>& operands, int64_t dim);
  // `output` is factor * addend plus a product of two matrices.
  void note_product(const Tensor& output, const Tensor& addend, double factor);
  // `output` is an activation with a plateau, which is such a term.
  void note_plateau(const Tensor& output);

  // Once it has run. With `scored`, the scores will be differentiated too, and terms are looked for.
  void close(const Tensor& scores, bool scored);

  // Whether the gradient varies smoothly with the points; false for piecewise-linear critics.
  bool curved() const { return watched_ || !curvatures_.empty(); }

  // Whether a part of the critic was compiled: PyTorch has no second derivative of it.
  bool compiled() const { return compiled_; }

  // Whether, for fixed masks, the score of each sample is affine in this sample alone, with known terms:
  // f(x) = <grad f, x> + sum over terms c of <signal, c>, where the signal is the gradient of f with respect to the sum
  // that c is part of.
  bool affine() const { return affine_; }

  // Whether the scores were computed from this tensor, and this from the points.
  bool comes_from_points(const Tensor& tensor) const { return on_path_.count(tensor.grad_fn().get()) > 0; }

  // Frees the inputs that the layers above the last curvature saved: only the second derivative of a curved layer,
  // which is propagated to the layers below it, needs them. Of a piecewise-linear critic these are all inputs.
  void let_go_of_inputs();

  // Where the signals of the terms are computed in the backward pass.
  std::vector<torch::autograd::Edge> signal_edges() const;

  // The scores of an affine critic as that function of the points' gradients and of the signals: their derivative
  // shares one pass with that of a penalty on the gradients. A signal that is undefined adds nothing.
  Tensor affine_scores(const std::vector<Tensor>& gradients, const std::vector<std::optional<Tensor>>& signals) const;

  // `gradients`, those of the scores at the points, without the edges along which their derivative would compute unused
  // values. This changes the graph: it cuts edges that carry only zeros, and edges that lead to the points alone.
  std::vector<std::optional<Tensor>> without_dead_work(const std::vector<std::optional<Tensor>>& gradients);

 private:
  struct Term {
    Node* node;
    Tensor value;
  };

  // What a node adds: undefined if nothing. The version shows whether it was changed in place since.
  struct Noted {
    NodePointer node;
    Tensor value;
    int64_t version;
  };

  bool visit(Node* node);
  bool is_on_path(const Node& node, size_t input) const;
  void keep_term(Node* node, const Tensor& value);
  void look_for_terms(Node& node, const std::vector<size_t>& from_points);
  void collect_leaves(Node* root, std::unordered_set<Node*>& visited);
  std::unordered_set<Node*> surely_reached(const std::vector<Node*>& roots) const;

  std::vector<Tensor> points_;
  Tensor scores_;                          // keeps the nodes alive
  std::vector<NodePointer> accumulators_;  // a tensor has a weak pointer alone
  std::unordered_set<Node*> point_nodes_;
  // While the critic runs: visited nodes, kept alive so that no other takes their address; those that come from the
  // points; what was noted of a node.
  std::vector<NodePointer> alive_;
  std::unordered_set<Node*> seen_, seen_on_path_;
  std::unordered_map<Node*, Noted> noted_;
  std::unordered_set<Node*> forward_, on_path_;
  std::vector<Node*> layers_;      // on the path, reached through their input
  std::vector<Node*> curvatures_;  // on the path, with a second derivative that does not vanish
  std::vector<Term> terms_;
  // Leaves that PyTorch's zeros reach; of a critic with hooks, stand-ins of the nodes that PyTorch sends them to.
  std::vector<Tensor> below_activations_;
  // A node of the critic has a hook, which may wait for PyTorch's zeros or change them: zeros take PyTorch's way then.
  bool hooked_ = false;
  // A hook on the path may make any gradient depend on the points.
  bool watched_ = false;
  bool compiled_ = false, affine_ = false;
};

}  // namespace wgan_fast
