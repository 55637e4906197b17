#include "critic/graph.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/functions/tensor.h>
#include <torch/csrc/autograd/python_cpp_function.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <bitset>
#include <string>

#include "critic/affine_scores.h"
#include "critic/layers.h"
#include "critic/linearity.h"
#include "ops/normalization.h"
#include "ops/piecewise_linear.h"
#include "ops/smooth_activation.h"

namespace wgan_fast {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Edge;
using torch::autograd::variable_list;

// The derivative of |x| is sgn(x), whose derivative is 0 for real x.
bool is_real_sign(const Node& node) {
  return name_of(node) == "SgnBackward0" && !at::isComplexType(node.input_metadata(0).dtype().toScalarType());
}

// A hook may add a dependence on the points that no edge shows.
bool has_hooks(Node& node) {
  return !node.tensor_pre_hooks().empty() || !node.retains_grad_hooks().empty() || !node.pre_hooks().empty() ||
         !node.post_hooks().empty();
}

// A sparse embedding's weight expects sparse gradients, so it must not receive dense zeros.
bool is_sparse_embedding(Node& node) {
  const std::string name = name_of(node);
  if (name != "EmbeddingBackward0" && name != "EmbeddingBagBackward0") return false;
  const auto wrapper = py::reinterpret_steal<py::object>(torch::autograd::functionToPyObject(node.getptr()));
  return wrapper.attr("_saved_sparse").cast<bool>();
}

// Depth first from the root: enter(node) before its inputs, leave(node) after them.
template <class Enter, class Leave>
void walk(Node* root, std::unordered_set<Node*>& visited, Enter&& enter, Leave&& leave) {
  std::vector<std::pair<Node*, size_t>> path;
  const auto go_to = [&](Node* node) {
    if (!node || !visited.insert(node).second) return;
    enter(node);
    path.emplace_back(node, 0);
  };
  go_to(root);
  while (!path.empty()) {
    auto& [node, next] = path.back();
    if (next < node->next_edges().size()) {
      go_to(node->next_edge(next++).function.get());
    } else {
      leave(node);
      path.pop_back();
    }
  }
}

constexpr auto nothing = [](Node*) {};

// The identity on the gradient; its backward sends zeros to `leaves`: those that receive PyTorch's zeros, and would
// receive None once the edges are cut.
class WithZeros : public torch::autograd::Function<WithZeros> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& gradient, const at::TensorList& leaves) {
    context->set_materialize_grads(false);
    context->saved_data["leaves"] = leaves.vec();  // not saved variables: their values may change
    return gradient;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    for (const Tensor& leaf : context->saved_data["leaves"].toTensorVector()) {
      const bool wanted = grads[0].defined() && context->needs_input_grad(grads.size());
      grads.push_back(wanted ? at::zeros_like(leaf) : Tensor());
    }
    return grads;
  }
};

// A tensor that gradients reach the node through: WithZeros sends it zeros of its shape.
Tensor stand_in(const Edge& edge) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const auto& metadata = edge.function->input_metadata(edge.input_nr);
  const Tensor result = at::zeros({}, metadata.options()).expand_symint(metadata.shape_as_dim_vector());
  torch::autograd::impl::set_gradient_edge(result, edge);
  return result;
}

}  // namespace

bool accumulation_has_hooks(const Tensor& leaf) {
  const auto accumulator = torch::autograd::impl::try_get_grad_accumulator(leaf);
  return accumulator && has_hooks(*accumulator);
}

CriticGraph::CriticGraph(const std::vector<Tensor>& points) : points_(points) {
  for (const Tensor& point : points) {
    accumulators_.push_back(torch::autograd::impl::grad_accumulator(point));
    point_nodes_.insert(accumulators_.back().get());
  }
  seen_ = seen_on_path_ = point_nodes_;
}

// Whether a node of a running critic comes from the points.
bool CriticGraph::visit(Node* root) {
  const auto keep = [&](Node* node) { alive_.push_back(node->getptr()); };
  walk(root, seen_, keep, [&](Node* node) {
    for (size_t i = 0; i < node->num_outputs(); ++i) {
      if (is_on_path(*node, i)) seen_on_path_.insert(node);
    }
  });
  return seen_on_path_.count(root) > 0;
}

bool CriticGraph::is_on_path(const Node& node, size_t input) const {
  return input < node.num_outputs() && seen_on_path_.count(node.next_edge(input).function.get()) > 0;
}

void CriticGraph::keep_term(Node* node, const Tensor& value) {
  if (value.defined() && (value.layout() != at::kStrided || value.is_complex())) return;
  // A constant, such as a buffer, may change before the scores are differentiated, so this copies it.
  const Tensor kept = value.defined() && !value.requires_grad() ? without_infinities(value.detach()) : value;
  noted_[node] = {node->getptr(), kept, kept.defined() ? kept._version() : 0};
}

void CriticGraph::note_sum(const Tensor& output, const std::vector<std::optional<Tensor>>& operands,
                           const std::vector<double>& factors) {
  const auto node = output.grad_fn();
  if (!node || !visit(node.get())) return;
  Tensor term;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (is_on_path(*node, i)) continue;
    if (!operands[i]) return;
    const Tensor value = factors[i] == 1 ? *operands[i] : operands[i]->to(output.scalar_type()) * factors[i];
    term = term.defined() ? term + value : value;
  }
  keep_term(node.get(), term);
}

void CriticGraph::note_product(const Tensor& output, const Tensor& addend, double factor) {
  const auto node = output.grad_fn();
  if (!node || !visit(node.get()) || !(is_on_path(*node, 1) || is_on_path(*node, 2))) return;
  keep_term(node.get(), is_on_path(*node, 0) ? Tensor() : factor == 1 ? addend : addend * factor);
}

void CriticGraph::note_concatenation(const Tensor& output, const std::vector<Tensor>& operands, int64_t dim) {
  const auto node = output.grad_fn();
  if (!node || node->num_outputs() != operands.size() || !visit(node.get())) return;
  std::vector<Tensor> parts;
  bool any = false;
  for (size_t i = 0; i < operands.size(); ++i) {
    const bool on_path = is_on_path(*node, i);
    parts.push_back(on_path ? at::zeros({1}, operands[i].options()).expand(operands[i].sizes()) : operands[i]);
    any |= !on_path;
  }
  keep_term(node.get(), any ? at::cat(parts, dim) : Tensor());
}

void CriticGraph::note_plateau(const Tensor& output) {
  const auto node = output.grad_fn();
  if (node && has_plateau(*node)) keep_term(node.get(), plateau_of(*node, output.detach()));
}

void CriticGraph::close(const Tensor& scores, bool scored) {
  scores_ = scores;
  affine_ = scored;
  on_path_ = point_nodes_;
  for (Node* node : point_nodes_) watched_ |= has_hooks(*node);
  std::vector<Node*> piecewise;
  walk(scores.grad_fn().get(), forward_, nothing, [&](Node* node) {
    hooked_ |= !node->next_edges().empty() && has_hooks(*node);
    unsigned from_points = 0;
    std::vector<size_t> inputs;
    for (size_t i = 0; i < node->next_edges().size(); ++i) {
      if (!on_path_.count(node->next_edge(i).function.get())) continue;
      from_points |= 1u << std::min<size_t>(i, 31);
      inputs.push_back(i);
    }
    if (from_points == 0) return;
    on_path_.insert(node);
    const Linearity linearity = linearity_of(*node);
    const bool product = std::bitset<32>(from_points & linearity.multiplied).count() > 1;
    if (product || (from_points & linearity.curved)) curvatures_.push_back(node);
    watched_ |= has_hooks(*node);
    if (linearity.piecewise) piecewise.push_back(node);
    if (is_layer(*node) && from_points == 0b01) layers_.push_back(node);
    if (name_of(*node) == "CompiledFunctionBackward") compiled_ = true;
    if (affine_ && !curved()) look_for_terms(*node, inputs);
  });
  affine_ = affine_ && !curved() && !points_.empty() && scores.dim() > 0 && scores.size(0) == points_[0].size(0) &&
            scores.numel() == scores.size(0);
  alive_.clear();
  std::unordered_set<Node*> below;
  for (Node* node : piecewise) {
    const Edge& edge = node->next_edge(0);
    if (!hooked_) {
      collect_leaves(edge.function.get(), below);
    } else if (edge.function && !point_nodes_.count(edge.function.get())) {
      below_activations_.push_back(stand_in(edge));
    }
  }
}

// Keeps the term of a node on the path. Not affine: samples may mix, or a term is not known.
void CriticGraph::look_for_terms(Node& node, const std::vector<size_t>& from_points) {
  const int64_t batch = points_[0].size(0);
  for (const size_t input : from_points) affine_ = affine_ && (batch == 1 || keeps_rows_apart(node, input, batch));
  Tensor term;
  if (is_layer(node)) {
    affine_ = affine_ && from_points == std::vector<size_t>{0};  // as bias or weight, they leave another term
    term = layer_bias(node);
  } else if (linearity_of(node).adds) {
    const bool alone = from_points.size() == node.num_outputs() && from_points.size() > 1;  // points everywhere
    const auto noted = noted_.find(&node);
    if (noted != noted_.end()) {
      term = noted->second.value;
      if (term.defined() && term._version() != noted->second.version) affine_ = false;
    } else if (!alone) {
      affine_ = false;
    }
  }
  if (term.defined()) terms_.push_back({&node, term});
}

std::vector<Edge> CriticGraph::signal_edges() const {
  std::vector<Edge> edges;
  for (const Term& term : terms_) edges.emplace_back(term.node->getptr(), 0);
  return edges;
}

Tensor CriticGraph::affine_scores(const std::vector<Tensor>& gradients,
                                  const std::vector<std::optional<Tensor>>& signals) const {
  std::vector<Tensor> used_signals, terms;
  for (size_t i = 0; i < terms_.size(); ++i) {
    if (!signals[i]) continue;
    used_signals.push_back(*signals[i]);
    terms.push_back(terms_[i].value);
  }
  return wgan_fast::affine_scores(scores_.detach(), points_, gradients, used_signals, terms);
}

// Appends to below_activations_ the leaves that PyTorch's zeros reach from `root`.
void CriticGraph::collect_leaves(Node* root, std::unordered_set<Node*>& visited) {
  walk(root, visited, nothing, [&](Node* node) {
    auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(node);
    if (leaf && !point_nodes_.count(leaf)) below_activations_.push_back(leaf->variable);
    if (is_sparse_embedding(*node)) {  // its weight was appended just now
      const Node* weight = node->next_edge(0).function.get();
      auto& leaves = below_activations_;
      leaves.erase(std::remove_if(leaves.begin(), leaves.end(),
                                  [&](const Tensor& leaf) {
                                    return torch::autograd::impl::grad_accumulator(leaf).get() == weight;
                                  }),
                   leaves.end());
    }
  });
}

void CriticGraph::let_go_of_inputs() {
  if (watched_) return;
  std::unordered_set<Node*> below;  // what the second derivatives of curved nodes are propagated through
  for (Node* node : curvatures_) walk(node, below, nothing, nothing);
  for (Node* layer : layers_) {
    if (!below.count(layer)) release_input(*layer);
  }
}

std::vector<std::optional<Tensor>> CriticGraph::without_dead_work(const std::vector<std::optional<Tensor>>& gradients) {
  std::unordered_set<Node*> visited, alive, below;
  const auto cut_dead = [&](Node* node) {
    if (hooked_ || forward_.count(node)) return;
    auto& edges = node->next_edges();
    if (sends_zeros(*node)) edges[1] = Edge();
    if (is_real_sign(*node) && on_path_.count(edges[0].function.get())) {
      collect_leaves(edges[0].function.get(), below);
      edges[0] = Edge();
    }
  };
  // Cuts edges that reach only the points. Forward edges: all or none, so that a later d(scores)/d(points) is right or
  // refused, never partial.
  const auto cut_edges_to_points = [&](Node* node) {
    auto& edges = node->next_edges();
    bool reaches = edges.empty() && !point_nodes_.count(node);
    for (Edge& edge : edges) {
      if (alive.count(edge.function.get())) {
        reaches = true;
      } else if (curved() || !forward_.count(node)) {
        edge = Edge();
      }
    }
    if (reaches) alive.insert(node);
  };
  if (curved()) walk(scores_.grad_fn().get(), visited, nothing, cut_edges_to_points);
  std::vector<Node*> roots;
  for (const auto& gradient : gradients) {
    if (gradient) roots.push_back(gradient->grad_fn().get());
  }
  for (Node* root : roots) walk(root, visited, cut_dead, cut_edges_to_points);
  std::vector<Tensor> zeros;
  const auto reached = surely_reached(roots);
  for (const Tensor& leaf : below_activations_) {
    if (hooked_ || !reached.count(torch::autograd::impl::grad_accumulator(leaf).get())) zeros.push_back(leaf);
  }
  std::vector<std::optional<Tensor>> result = gradients;
  for (auto& gradient : result) {
    if (!gradient) continue;
    if (!zeros.empty()) {
      gradient = WithZeros::apply(*gradient, at::TensorList(zeros));
      zeros.clear();
    } else if (!gradient->requires_grad()) {
      // With a frozen critic, PyTorch's penalty still requires grad (and its backward computes nothing); so does this.
      gradient = gradient->detach().requires_grad_();
    }
  }
  return result;
}

// The nodes that certainly receive a gradient when the penalty is differentiated. Curved nodes and backwards of
// backwards may return an undefined gradient, so paths through them do not count.
std::unordered_set<Node*> CriticGraph::surely_reached(const std::vector<Node*>& roots) const {
  const auto passes_on = [&](Node& node) {
    if (is_layer(node) || is_piecewise_linear(node) || is_smooth_activation(node) || is_normalization(node))
      return true;
    const std::string name = node.name();
    return forward_.count(&node) ? name.find("BackwardBackward") == std::string::npos : is_known(name);
  };
  std::unordered_set<Node*> reached;
  std::vector<Node*> next = roots;
  while (!next.empty()) {
    Node* node = next.back();
    next.pop_back();
    if (!node || !reached.insert(node).second) continue;
    if (on_path_.count(node) || !passes_on(*node)) continue;
    for (const Edge& edge : node->next_edges()) next.push_back(edge.function.get());
  }
  return reached;
}

}  // namespace wgan_fast
