// The schema of every operator, and the Python module `_C`. Importing it registers the operators. Its functions
// describe the build and provide the layers and the graph of a critic inside a penalty.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/autograd/python_cpp_function.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>
#include <torch/version.h>

#ifdef WGAN_FAST_CUDA
#include <cuda_runtime_api.h>
#endif

#include "critic/activations.h"
#include "critic/graph.h"
#include "critic/layers.h"
#include "critic/linearity.h"
#include "kernels/instruction_set.h"

TORCH_LIBRARY(wgan_fast, library) {
  library.def("interpolate(Tensor real, Tensor fake, Tensor t) -> Tensor");
  library.def(
      "gradient_norm_penalty(Tensor gradient, float weight, float target, float power, bool one_sided)"
      " -> (Tensor penalty, Tensor norms)");
  library.def(
      "gradient_norm_penalty_backward(Tensor grad_penalty, Tensor gradient, Tensor norms, float weight, float target,"
      " float power, bool one_sided) -> Tensor");
  library.def("piecewise_linear(Tensor x, float negative_slope, float lower, float upper) -> (Tensor y, Tensor mask)");
  library.def("piecewise_linear_(Tensor(a!) x, float negative_slope, float lower, float upper) -> Tensor mask");
  library.def("apply_mask(Tensor x, Tensor mask, float negative_slope, int[] stride) -> Tensor");
  library.def("smooth_activation(Tensor x, str kind, float[] parameters) -> Tensor");
  library.def("smooth_activation_(Tensor(a!) x, str kind, float[] parameters) -> ()");
  library.def(
      "smooth_activation_backward(Tensor grad, Tensor saved, str kind, float[] parameters, int order) -> Tensor");
  library.def(
      "smooth_activation_double_backward(Tensor grad_grad, Tensor grad, Tensor saved, str kind, float[] parameters)"
      " -> (Tensor grad, Tensor saved)");
  library.def(
      "normalization(Tensor x, Tensor? weight, Tensor? bias, int[] shape, float eps, bool centered)"
      " -> (Tensor y, Tensor statistics)");
  library.def(
      "normalization_backward(Tensor grad, Tensor x, Tensor statistics, Tensor? weight, int[] shape, float eps,"
      " bool centered, bool[3] mask) -> (Tensor x, Tensor weight, Tensor bias)");
  library.def(
      "normalization_double_backward(Tensor grad_grad, Tensor grad, Tensor x, Tensor statistics, Tensor? weight,"
      " int[] shape, float eps, bool centered, bool weight_wanted) -> (Tensor grad, Tensor x, Tensor weight)");
  library.def("nonfinite(Tensor[] tensors) -> Tensor");
  library.def("clip_weights_(Tensor(a!)[] tensors, float bound) -> ()");
  library.def(
      "rmsprop_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] square_averages, Tensor lr, float alpha, float eps,"
      " float weight_decay, bool maximize, float clip, Tensor? grad_scale, Tensor? found_inf) -> ()");
}

namespace py = pybind11;
using namespace wgan_fast;

PYBIND11_MODULE(_C, module) {
  module.def("build_info", [] {
    py::dict info;
    info["version"] = WGAN_FAST_VERSION;
    info["torch"] = TORCH_VERSION;
    info["compiler"] = __VERSION__;
    info["instruction_set"] = instruction_set();
#ifdef _OPENMP
    info["threads"] = true;  // at::parallel_for runs on PyTorch's threads; without OpenMP it is a plain loop
#else
    info["threads"] = false;
#endif
#ifdef WGAN_FAST_CUDA
    info["cuda"] = std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
    info["cuda_architectures"] = py::str(WGAN_FAST_CUDA_ARCHITECTURES).attr("split")(";");
#else
    info["cuda"] = py::none();
    info["cuda_architectures"] = py::list();
#endif
    return info;
  });

  // A critic's layers inside a penalty, with the arguments that they have in PyTorch, and its graph; see critic/.
  const auto input = py::arg("input");
  const auto inplace = py::arg("inplace") = false;
  const auto slope = py::arg("negative_slope") = 0.01;
  const auto min_val = py::arg("min_val") = -1.0, max_val = py::arg("max_val") = 1.0;
  const auto layer = [&](const char* name, auto function, auto... arguments) {
    module.def(name, function, arguments..., py::call_guard<py::gil_scoped_release>());
  };
  layer("linear", linear, input, py::arg("weight"), py::arg("bias") = py::none());
  layer("convolution", convolution);
  layer("prelu", prelu, input, py::arg("weight"));
  layer("relu", relu, input, inplace);
  layer("relu_", relu_, input);
  layer("relu6", relu6, input, inplace);
  layer("relu6_", relu6_, input);
  layer("leaky_relu", leaky_relu, input, slope, inplace);
  layer("leaky_relu_", leaky_relu_, input, slope);
  layer("hardtanh", hardtanh, input, min_val, max_val, inplace);
  layer("hardtanh_", hardtanh_, input, min_val, max_val);
  layer("smooth_activation", smooth_activation, input, py::arg("kind"), py::arg("parameters"), inplace);
  layer("normalization", normalization, input, py::arg("weight"), py::arg("bias"), py::arg("shape"), py::arg("eps"),
        py::arg("centered"));
  module.def("declare_piecewise_linear",
             [](const py::object& backward_class, bool adds) { declare_piecewise_linear(backward_class.ptr(), adds); });
  module.def("is_plain", is_plain);
  module.def("has_hooks", [](const Tensor& leaf) { return accumulation_has_hooks(leaf); });
  py::class_<CriticGraph>(module, "CriticGraph")
      .def(py::init<const std::vector<Tensor>&>(), py::arg("points"))
      .def("note_sum", &CriticGraph::note_sum)
      .def("note_concatenation", &CriticGraph::note_concatenation)
      .def("note_product", &CriticGraph::note_product)
      .def("note_plateau", &CriticGraph::note_plateau)
      .def("close", &CriticGraph::close)
      .def_property_readonly("curved", &CriticGraph::curved)
      .def_property_readonly("compiled", &CriticGraph::compiled)
      .def_property_readonly("affine", &CriticGraph::affine)
      .def("comes_from_points", &CriticGraph::comes_from_points)
      .def("let_go_of_inputs", &CriticGraph::let_go_of_inputs)
      .def("signal_edges",
           [](const CriticGraph& graph) {
             py::list edges;  // (node, output), as torch.autograd.graph.GradientEdge has them
             for (const auto& edge : graph.signal_edges()) {
               const auto node = py::reinterpret_steal<py::object>(torch::autograd::functionToPyObject(edge.function));
               edges.append(py::make_tuple(node, edge.input_nr));
             }
             return edges;
           })
      .def("affine_scores", &CriticGraph::affine_scores)
      .def("without_dead_work", &CriticGraph::without_dead_work);
}
