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
#include <sstream>
#include <string>
#include <unordered_map>

#include "critic/layers.h"
#include "ops/piecewise_linear.h"

namespace wgan_fast {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Edge;
using torch::autograd::variable_list;

// Names of PyTorch's operators, as their backward nodes have them. LINEAR: linear, or choosing among the inputs (a
// maximum); their backward saves no differentiable input.
constexpr const char* LINEAR =
    "Add Alias Amax Amin AsStrided Cat Clamp ClampMax ClampMin Clone ConstantPadNd Cumsum Diagonal Expand Flip Gather "
    "Im2Col Index IndexSelect MaskedFill Max Maximum Mean Median Min Minimum NativeDropout Neg Permute PixelShuffle "
    "PixelUnshuffle Repeat ReshapeAlias Roll Rsub Select Slice Sort Split SplitWithSizes Squeeze Stack Sub Sum T "
    "ToCopy Topk Transpose Tril Triu Unbind Unfold UnsafeSplit UnsafeView Unsqueeze UpsampleBilinear2D "
    "UpsampleLinear1D UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D View Where";
// BILINEAR: linear in each of two inputs; the backward for one saves the other.
constexpr const char* BILINEAR = "Bmm Convolution Mm Mul Mv";
// PIECEWISE: piecewise linear; the backward saves the input for a sign, a maximum or a shape. Double backward sends
// zeros to that input, and from there through the whole forward.
constexpr const char* PIECEWISE =
    "AdaptiveAvgPool2D AdaptiveAvgPool3D AdaptiveMaxPool2D AdaptiveMaxPool3D AvgPool2D AvgPool3D FractionalMaxPool2D "
    "FractionalMaxPool3D Hardshrink Hardtanh LeakyRelu MaxPool2DWithIndices MaxPool3DWithIndices ReflectionPad1D "
    "ReflectionPad2D ReflectionPad3D Relu ReplicationPad1D ReplicationPad2D ReplicationPad3D RreluWithNoise Softshrink "
    "Threshold";

template <class Use>
void for_each_word(const char* words, Use&& use) {
  std::istringstream stream(words);
  for (std::string word; stream >> word;) use(word);
}

// How a node depends on its inputs; bit i stands for input i.
struct Linearity {
  unsigned multiplied = 0;  // linear in each of these, but a product of them
  unsigned curved = 0;      // not known to be linear in these
  bool piecewise = false;   // double backward sends zeros to its input
};
constexpr unsigned ALL = ~0u;

// By node name. An unknown node counts as curved, which costs memory but is correct.
const std::unordered_map<std::string, Linearity>& linearities() {
  static const auto table = [] {
    std::unordered_map<std::string, Linearity> table;
    const auto enter = [&](const std::string& name, std::initializer_list<const char*> overloads, Linearity linearity) {
      for (const char* overload : overloads) table[name + "Backward" + overload] = linearity;
    };
    for_each_word(LINEAR, [&](auto& name) { enter(name, {"0", "1", "2"}, {}); });
    for_each_word(BILINEAR, [&](auto& name) { enter(name, {"0"}, {0b11, 0, false}); });
    for_each_word(PIECEWISE, [&](auto& name) { enter(name, {"0", "1"}, {0, 0, true}); });
    for (const char* name : {"Addmm", "Baddbmm"}) enter(name, {"0"}, {0b110, 0, false});
    enter("Mul", {"1"}, {});
    enter("Div", {"0"}, {0, 0b10, false});
    enter("Div", {"1"}, {});
    for (const char* name : {"Abs", "PreluKernel"}) enter(name, {"0"}, {0, ALL, true});
    return table;
  }();
  return table;
}

// The name of a node of PyTorch's operators; empty for other nodes, whose names are demangled from their type, which is
// slower than the rest of a walk.
std::string name_of(const Node& node) {
  const bool nameless =
      is_layer(node) || is_piecewise_linear(node) || typeid(node) == typeid(torch::autograd::AccumulateGrad);
  return nameless ? std::string() : node.name();
}

Linearity linearity_of(const Node& node) {
  // A view changed in place; if by an activation, double backward sends zeros too.
  if (const auto* change = dynamic_cast<const torch::autograd::CopySlices*>(&node)) {
    return {0, ALL, change->fn && linearity_of(*change->fn).piecewise};
  }
  if (is_layer(node)) return {0b11, 0, is_prelu(node)};
  if (is_piecewise_linear(node)) return {0, 0, true};
  const auto entry = linearities().find(name_of(node));
  return entry == linearities().end() ? Linearity{0, ALL, false} : entry->second;
}

// Whether the node is the backward of a PIECEWISE backward. Its edge 1, to the input in the forward, carries only
// zeros.
bool sends_zeros(const Node& node) {
  static const auto names = [] {
    std::unordered_set<std::string> names;
    for_each_word(PIECEWISE, [&](auto& name) { names.insert(name + "BackwardBackward0"); });
    return names;
  }();
  return names.count(name_of(node)) > 0;
}

// The derivative of |x| is sgn(x), whose derivative is 0 for real x.
bool is_real_sign(const Node& node) {
  return name_of(node) == "SgnBackward0" && !at::isComplexType(node.input_metadata(0).dtype().toScalarType());
}

// A hook may add a dependence on the points that no edge shows.
bool has_hooks(Node& node) {
  return !node.tensor_pre_hooks().empty() || !node.pre_hooks().empty() || !node.post_hooks().empty();
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

}  // namespace

CriticGraph::CriticGraph(const Tensor& scores, const Tensor& points) : scores_(scores) {
  const auto accumulator = torch::autograd::impl::grad_accumulator(points);
  points_ = accumulator.get();
  on_path_.insert(points_);
  curved_ = has_hooks(*points_);
  std::vector<Node*> piecewise;
  walk(scores.grad_fn().get(), forward_, nothing, [&](Node* node) {
    unsigned from_points = 0;
    for (size_t i = 0; i < node->next_edges().size(); ++i) {
      if (on_path_.count(node->next_edge(i).function.get())) from_points |= 1u << std::min<size_t>(i, 31);
    }
    if (from_points == 0) return;
    on_path_.insert(node);
    const Linearity linearity = linearity_of(*node);
    const bool product = std::bitset<32>(from_points & linearity.multiplied).count() > 1;
    if (product || (from_points & linearity.curved) || has_hooks(*node)) curved_ = true;
    if (linearity.piecewise) piecewise.push_back(node);
    if (is_layer(*node) && from_points == 0b01) layers_.push_back(node);
    if (name_of(*node) == "CompiledFunctionBackward") compiled_ = true;
  });
  std::unordered_set<Node*> below;
  for (Node* node : piecewise) collect_leaves(node->next_edge(0).function.get(), below);
}

// Appends to below_activations_ the leaves that PyTorch's zeros reach from `root`.
void CriticGraph::collect_leaves(Node* root, std::unordered_set<Node*>& visited) {
  walk(root, visited, nothing, [&](Node* node) {
    auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(node);
    if (leaf && leaf != points_) below_activations_.push_back(leaf->variable);
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
  if (curved_) return;
  for (Node* layer : layers_) release_input(*layer);
}

Tensor CriticGraph::without_dead_work(const Tensor& gradient) {
  std::unordered_set<Node*> visited, alive;
  const auto cut_dead = [&](Node* node) {
    if (forward_.count(node)) return;
    auto& edges = node->next_edges();
    if (sends_zeros(*node)) edges[1] = Edge();
    if (is_real_sign(*node) && on_path_.count(edges[0].function.get())) edges[0] = Edge();
  };
  // Cuts edges that reach only the points. Forward edges: all or none, so that a later d(scores)/d(points) is right or
  // refused, never partial.
  const auto cut_edges_to_points = [&](Node* node) {
    auto& edges = node->next_edges();
    bool reaches = edges.empty() && node != points_;
    for (Edge& edge : edges) {
      if (alive.count(edge.function.get())) {
        reaches = true;
      } else if (curved_ || !forward_.count(node)) {
        edge = Edge();
      }
    }
    if (reaches) alive.insert(node);
  };
  if (curved_) walk(scores_.grad_fn().get(), visited, nothing, cut_edges_to_points);
  walk(gradient.grad_fn().get(), visited, cut_dead, cut_edges_to_points);
  std::vector<Tensor> zeros;
  const auto reached = surely_reached(gradient.grad_fn().get());
  for (const Tensor& leaf : below_activations_) {
    if (!reached.count(torch::autograd::impl::grad_accumulator(leaf).get())) zeros.push_back(leaf);
  }
  if (!zeros.empty()) return WithZeros::apply(gradient, at::TensorList(zeros));
  // With a frozen critic PyTorch's penalty still requires grad, and its backward computes nothing. So does this one.
  return gradient.requires_grad() ? gradient : gradient.detach().requires_grad_();
}

// The nodes that certainly receive a gradient when the penalty is differentiated. Curved nodes and backwards of
// backwards may return an undefined gradient, so paths through them do not count.
std::unordered_set<Node*> CriticGraph::surely_reached(Node* root) const {
  const auto passes_on = [&](Node& node) {
    if (is_layer(node) || is_piecewise_linear(node)) return true;
    const std::string name = node.name();
    return forward_.count(&node) ? name.find("BackwardBackward") == std::string::npos : linearities().count(name) > 0;
  };
  std::unordered_set<Node*> reached;
  std::vector<Node*> next{root};
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
