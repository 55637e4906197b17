#include "critic/linearity.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/functions/tensor.h>
#include <torch/csrc/autograd/python_cpp_function.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <sstream>
#include <unordered_map>
#include <unordered_set>

#include "critic/layers.h"
#include "ops/normalization.h"
#include "ops/piecewise_linear.h"
#include "ops/smooth_activation.h"

namespace wgan_fast {
namespace {

using torch::autograd::Edge;

// Names of PyTorch's operators, as their backward nodes have them. LINEAR: linear, or choosing among the inputs (a
// maximum); their backward saves no differentiable input.
struct Operators {
  const char* names;
  Linearity::Rows rows;
};
constexpr Operators LINEAR[] = {
    {"Add Alias Clamp ClampMax ClampMin Clone Expand MaskedFill Maximum Minimum NativeDropout Neg Rsub Sub ToCopy "
     "Where",
     Linearity::POINTWISE},
    {"ReshapeAlias Squeeze UnsafeView Unsqueeze View", Linearity::RESHAPED},
    {"ConstantPadNd Im2Col PixelShuffle PixelUnshuffle UpsampleBilinear2D UpsampleLinear1D UpsampleNearest1D "
     "UpsampleNearest2D UpsampleNearest3D",
     Linearity::TRAILING},
    {"Amax Amin Cat Cumsum Flip Gather IndexSelect Max Mean Median Min Roll Select Slice Sort Split SplitWithSizes "
     "Stack Sum Topk Unbind UnsafeSplit",
     Linearity::ALONG},
    {"Permute Transpose", Linearity::PERMUTED},
    {"AsStrided Diagonal Index Repeat T Tril Triu Unfold", Linearity::MIXED},
};
// BILINEAR: linear in each of two inputs; the backward for one saves the other.
constexpr Operators BILINEAR[] = {
    {"Mul", Linearity::POINTWISE},
    {"Bmm", Linearity::TRAILING},
    {"Convolution Mm Mv", Linearity::LEFT},
};
// PIECEWISE: piecewise linear; the backward saves the input for a sign, a maximum or a shape. Double backward sends
// zeros to that input, and from there through the whole forward.
constexpr Operators PIECEWISE[] = {
    {"Hardshrink Hardtanh LeakyRelu Relu RreluWithNoise Softshrink Threshold", Linearity::POINTWISE},
    {"AdaptiveAvgPool2D AdaptiveAvgPool3D AdaptiveMaxPool2D AdaptiveMaxPool3D AvgPool2D AvgPool3D "
     "FractionalMaxPool2D FractionalMaxPool3D MaxPool2DWithIndices MaxPool3DWithIndices ReflectionPad1D "
     "ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D ReplicationPad3D",
     Linearity::TRAILING},
};
// Those that may add a term: another operand, or a constant that no edge shows.
constexpr const char* ADDING =
    "Add Addmm Baddbmm Cat Convolution Clamp ClampMax ClampMin ConstantPadNd Hardtanh MaskedFill Maximum Minimum Rsub "
    "Softshrink "
    "Stack Sub Threshold Where";

template <class Use>
void for_each_word(const char* words, Use&& use) {
  std::istringstream stream(words);
  for (std::string word; stream >> word;) use(word);
}

// By node name. A node that is missing here counts as curved: the result is the same and costs more memory.
const std::unordered_map<std::string, Linearity>& linearities() {
  static const auto table = [] {
    std::unordered_map<std::string, Linearity> table;
    const auto enter = [&](const std::string& name, std::initializer_list<const char*> overloads, Linearity linearity) {
      for (const char* overload : overloads) table[name + "Backward" + overload] = linearity;
    };
    for (const auto& [names, rows] : LINEAR) {
      for_each_word(names, [&, rows = rows](auto& name) { enter(name, {"0", "1", "2"}, {0, 0, false, rows}); });
    }
    for (const auto& [names, rows] : BILINEAR) {
      for_each_word(names, [&, rows = rows](auto& name) { enter(name, {"0"}, {0b11, 0, false, rows}); });
    }
    for (const auto& [names, rows] : PIECEWISE) {
      for_each_word(names, [&, rows = rows](auto& name) { enter(name, {"0", "1"}, {0, 0, true, rows}); });
    }
    enter("Addmm", {"0"}, {0b110, 0, false, Linearity::LEFT});
    enter("Baddbmm", {"0"}, {0b110, 0, false, Linearity::TRAILING});
    enter("Mul", {"1"}, {0, 0, false, Linearity::POINTWISE});
    enter("Div", {"0"}, {0, 0b10, false, Linearity::POINTWISE});
    enter("Div", {"1"}, {0, 0, false, Linearity::POINTWISE});
    for (const char* name : {"Abs", "PreluKernel"}) enter(name, {"0"}, {0, ~0u, true});
    for_each_word(ADDING, [&](auto& name) {
      for (const char* overload : {"0", "1", "2"}) {
        const auto entry = table.find(name + "Backward" + overload);
        if (entry != table.end()) entry->second.adds = true;
      }
    });
    return table;
  }();
  return table;
}

// Backward class of a declared function -> whether it adds a term.
std::unordered_map<PyObject*, bool>& declared() {
  static std::unordered_map<PyObject*, bool> classes;
  return classes;
}

// An attribute that PyTorch's node saved: one dimension, or a tuple of them. Empty if there is none.
std::vector<int64_t> saved_dimensions(Node& node, std::initializer_list<const char*> names) {
  const auto wrapper = py::reinterpret_steal<py::object>(torch::autograd::functionToPyObject(node.getptr()));
  std::vector<int64_t> dimensions;
  for (const char* name : names) {
    const py::object value = py::getattr(wrapper, name, py::none());
    // PyTorch shows negative numbers as unsigned ones.
    const auto append = [&](py::handle number) {
      dimensions.push_back(static_cast<int64_t>(PyLong_AsUnsignedLongLongMask(number.ptr())));
    };
    if (py::isinstance<py::tuple>(value)) {
      for (py::handle number : value) append(number);
    } else if (py::isinstance<py::int_>(value)) {
      append(value);
    }
  }
  return dimensions;
}

// Empty for a scalar, and where they are symbols or those of a nested tensor.
std::vector<int64_t> sizes(const torch::autograd::InputMetadata& metadata) {
  std::vector<int64_t> result;
  if (metadata.is_nested_tensor()) return result;
  for (const c10::SymInt& size : metadata.shape_as_dim_vector()) {
    if (!size.maybe_as_int()) return {};
    result.push_back(*size.maybe_as_int());
  }
  return result;
}

}  // namespace

std::string name_of(const Node& node) {
  const bool nameless = is_layer(node) || is_piecewise_linear(node) || is_smooth_activation(node) ||
                        is_normalization(node) || typeid(node) == typeid(torch::autograd::AccumulateGrad);
  return nameless ? std::string() : node.name();
}

bool is_known(const std::string& name) { return linearities().count(name) > 0; }

Linearity linearity_of(const Node& node) {
  // A view changed in place; if by an activation, double backward sends zeros too.
  if (const auto* change = dynamic_cast<const torch::autograd::CopySlices*>(&node)) {
    return {0, ~0u, change->fn && linearity_of(*change->fn).piecewise};
  }
  if (is_layer(node)) return {0b11, 0, is_prelu(node), is_prelu(node) ? Linearity::POINTWISE : Linearity::LEFT};
  if (is_piecewise_linear(node)) return {0, 0, true, Linearity::POINTWISE, has_plateau(node)};
  const auto entry = linearities().find(name_of(node));
  if (entry != linearities().end()) return entry->second;
  if (!declared().empty()) {
    const auto wrapper =
        py::reinterpret_steal<py::object>(torch::autograd::functionToPyObject(const_cast<Node&>(node).getptr()));
    const auto function = declared().find(reinterpret_cast<PyObject*>(Py_TYPE(wrapper.ptr())));
    if (function != declared().end()) return {0, ~1u, false, Linearity::TRAILING, function->second};
  }
  return {0, ~0u, false};
}

void declare_piecewise_linear(PyObject* backward_class, bool adds) {
  Py_INCREF(backward_class);  // as long as the process
  declared()[backward_class] = adds;
}

bool sends_zeros(const Node& node) {
  static const auto names = [] {
    std::unordered_set<std::string> names;
    for (const auto& operators : PIECEWISE) {
      for_each_word(operators.names, [&](auto& name) { names.insert(name + "BackwardBackward0"); });
    }
    return names;
  }();
  return names.count(name_of(node)) > 0;
}

bool keeps_rows_apart(Node& node, size_t input, int64_t batch) {
  const Edge& edge = node.next_edge(input);
  const auto in = sizes(edge.function->input_metadata(edge.input_nr)), out = sizes(node.input_metadata(0));
  if (in.empty() || out.empty() || in[0] % batch != 0) return false;
  const int64_t dims = static_cast<int64_t>(in.size());
  // None of the dimensions is the first one; without any, the operator works along all of them. `stack` counts the
  // dimension that it adds.
  const auto skip_first = [&](const std::vector<int64_t>& dimensions) {
    return !dimensions.empty() && std::none_of(dimensions.begin(), dimensions.end(),
                                               [&](int64_t dimension) { return dimension == 0 || dimension <= -dims; });
  };
  switch (linearity_of(node).rows) {
    case Linearity::POINTWISE:
      return in.size() == out.size() && in[0] == out[0];
    case Linearity::RESHAPED:
      return out[0] % batch == 0;
    case Linearity::TRAILING:
      return in.size() > 1 && in[0] == out[0];
    case Linearity::ALONG:
      return in[0] == out[0] && skip_first(saved_dimensions(node, {"_saved_dim", "_saved_dims"}));
    case Linearity::PERMUTED: {
      if (name_of(node) == "TransposeBackward0") {
        return skip_first(saved_dimensions(node, {"_saved_dim0", "_saved_dim1"}));
      }
      const auto dimensions = saved_dimensions(node, {"_saved_dims"});
      return !dimensions.empty() && (dimensions[0] == 0 || dimensions[0] == -dims);
    }
    case Linearity::LEFT:
      return in.size() > 1 && in[0] == out[0] && input <= (name_of(node) == "AddmmBackward0" ? 1 : 0);
    case Linearity::MIXED:
      return false;
  }
  return false;
}

}  // namespace wgan_fast
