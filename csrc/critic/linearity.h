// What the node of an operator does to a critic's path from the points: is it linear, does it add something, does it
// keep the samples of a batch apart.
#pragma once

#include <Python.h>
#include <torch/csrc/autograd/function.h>

#include <string>

namespace wgan_fast {

using torch::autograd::Node;

// How a node depends on its inputs; bit i stands for input i.
struct Linearity {
  // How the output's leading dimension, that of the batch, follows from that of an input.
  enum Rows {
    MIXED,      // not known to keep samples apart
    POINTWISE,  // element by element, with broadcasting
    RESHAPED,   // the same elements in the same order, another shape
    TRAILING,   // works on other dimensions than the first
    ALONG,      // works along saved dimensions
    PERMUTED,   // moves saved dimensions
    LEFT,       // a product; the last factor is the same for all samples
  };

  unsigned multiplied = 0;  // linear in each of these, but a product of them
  unsigned curved = 0;      // not known to be linear in these
  bool piecewise = false;   // double backward sends zeros to its input
  Rows rows = MIXED;
  bool adds = false;  // may add something that does not come from its inputs' nodes
};

Linearity linearity_of(const Node& node);

// From now on a torch.autograd.Function with this backward class counts as piecewise linear in its first input, each
// sample by itself, with an added term or without one.
void declare_piecewise_linear(PyObject* backward_class, bool adds);

// The name of a node of PyTorch's operators; empty for other nodes, whose names are demangled from their type, which is
// slower than the rest of a walk.
std::string name_of(const Node& node);

// Whether PyTorch's operator of this node name is known.
bool is_known(const std::string& name);

// Whether the node is the backward of a piecewise-linear operator's backward. Its edge 1, to the input in the forward,
// carries only zeros.
bool sends_zeros(const Node& node);

// Whether sample i of its output depends on sample i of its input `i` alone. A sample is a block of consecutive
// elements; a batch has `batch` of them.
bool keeps_rows_apart(Node& node, size_t input, int64_t batch);

}  // namespace wgan_fast
