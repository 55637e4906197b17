// The graph of a critic's forward, from the scores down to the points, and that of the gradient which is taken of it.
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

#include "critic/graph.h"

namespace wgan_fast {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Edge;
using torch::autograd::variable_list;

// PyTorch's nodes, by the names of their operators. Those whose backward keeps no differentiable input: they are
// linear, or choose among their inputs.
constexpr const char* LINEAR =
    "Add Alias Amax Amin AsStrided Cat Clamp ClampMax ClampMin Clone ConstantPadNd Cumsum Diagonal Expand Flip Gather "
    "Im2Col Index IndexSelect MaskedFill Max Maximum Mean Median Min Minimum NativeDropout Neg Permute PixelShuffle "
    "PixelUnshuffle Repeat ReshapeAlias Roll Rsub Select Slice Sort Split SplitWithSizes Squeeze Stack Sub Sum T "
    "ToCopy Topk Transpose Tril Triu Unbind Unfold UnsafeSplit UnsafeView Unsqueeze UpsampleBilinear2D "
    "UpsampleLinear1D UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D View Where";
// Those whose backward for each of two inputs keeps the other:
constexpr const char* BILINEAR = "Bmm Convolution Mm Mul Mv";
// Those whose backward keeps the input for a sign, a maximum or a shape, and whose second derivative sends zeros to it,
// which would travel through the whole forward.
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

// How a node depends on its inputs, of which a bit stands for each.
struct Linearity {
  unsigned multiplied = 0;  // it is linear in each of these, but not in two of them at once
  unsigned curved = 0;      // it is not known to be linear in these
  bool piecewise = false;   // its second derivative has zeros for its input
};
constexpr unsigned ALL = ~0u;

// A node that is not here counts as curved, which costs memory and nothing else.
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

// The name of one of PyTorch's operators, or nothing. That of other nodes is demangled from their type, which takes
// longer than the rest of a walk.
std::string name_of(const Node& node) {
  const bool nameless =
      is_layer(node) || is_piecewise_linear(node) || typeid(node) == typeid(torch::autograd::AccumulateGrad);
  return nameless ? std::string() : node.name();
}

Linearity linearity_of(const Node& node) {
  // A change in place of a view: of an activation, the zeros are the same.
  if (const auto* change = dynamic_cast<const torch::autograd::CopySlices*>(&node)) {
    return {0, ALL, change->fn && linearity_of(*change->fn).piecewise};
  }
  if (is_layer(node)) return {0b11, 0, is_prelu(node)};
  if (is_piecewise_linear(node)) return {0, 0, true};
  const auto entry = linearities().find(name_of(node));
  return entry == linearities().end() ? Linearity{0, ALL, false} : entry->second;
}

// The input that the derivative of a backward sends nothing but zeros to, where `node` is such a derivative.
std::optional<size_t> dead_input(const Node& node) {
  static const auto names = [] {
    std::unordered_set<std::string> names;
    for_each_word(PIECEWISE, [&](auto& name) { names.insert(name + "BackwardBackward0"); });
    return names;
  }();
  const std::string name = name_of(node);
  if (names.count(name)) return 1;
  return std::nullopt;
}

// |x| has the derivative sgn(x), whose own is zero unless it is complex.
bool is_real_sign(const Node& node) {
  return name_of(node) == "SgnBackward0" && !at::isComplexType(node.input_metadata(0).dtype().toScalarType());
}

// Hooks may bring in what no edge shows, the sample itself for example.
bool has_hooks(Node& node) {
  return !node.tensor_pre_hooks().empty() || !node.pre_hooks().empty() || !node.post_hooks().empty();
}

// Its weight expects sparse gradients, so no dense zeros.
bool is_sparse_embedding(Node& node) {
  const std::string name = name_of(node);
  if (name != "EmbeddingBackward0" && name != "EmbeddingBagBackward0") return false;
  const auto wrapper = py::reinterpret_steal<py::object>(torch::autograd::functionToPyObject(node.getptr()));
  return wrapper.attr("_saved_sparse").cast<bool>();
}

// Walks from the root down: enter(node) before its inputs, leave(node) after them.
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

// The gradient itself; leaves that its derivative does not reach, but PyTorch's zeros would have, receive zeros.
class WithZeros : public torch::autograd::Function<WithZeros> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& gradient, const at::TensorList& leaves) {
    context->set_materialize_grads(false);
    context->saved_data["leaves"] = leaves.vec();  // not their values, which may change
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

// Appends to below_activations_ what PyTorch's zeros would reach from here.
void CriticGraph::collect_leaves(Node* root, std::unordered_set<Node*>& visited) {
  walk(root, visited, nothing, [&](Node* node) {
    auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(node);
    if (leaf && leaf != points_) below_activations_.push_back(leaf->variable);
    if (is_sparse_embedding(*node)) {  // its weight has just been appended
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
  for (Node* layer : layers_) let_go_of_input(*layer);
}

Tensor CriticGraph::without_dead_work(const Tensor& gradient) {
  std::unordered_set<Node*> visited, alive;
  const auto cut_dead = [&](Node* node) {
    if (forward_.count(node)) return;
    auto& edges = node->next_edges();
    if (const auto dead = dead_input(*node)) edges[*dead] = Edge();
    if (is_real_sign(*node) && on_path_.count(edges[0].function.get())) edges[0] = Edge();
  };
  // Edges to what leads to no leaf but the points. In the forward all of them go or none, so that a derivative of kept
  // scores with respect to the points is right or refused.
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
  // The penalty of a frozen critic can be differentiated as PyTorch's can, for nothing.
  return gradient.requires_grad() ? gradient : gradient.detach().requires_grad_();
}

// The nodes whose input surely receives a gradient when the penalty is differentiated. PyTorch may leave an input
// without one where there is curvature, and where a backward was differentiated, so paths through those do not count.
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
