// The schema of every operator, and the module `_C`: importing it registers them, and it knows how it was built. What
// it offers beside them are the parts of a critic's forward inside a penalty.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>
#include <torch/version.h>

#ifdef WGAN_FAST_CUDA
#include <cuda_runtime_api.h>
#endif

#include <limits>

#include "kernels/instruction_set.h"
#include "critic/graph.h"

TORCH_LIBRARY(wgan_fast, library) {
  library.def("interpolate(Tensor real, Tensor fake, Tensor t) -> Tensor");
  library.def(
      "gradient_norm_penalty(Tensor gradient, float weight, float target, float power, bool one_sided)"
      " -> (Tensor penalty, Tensor norms)");
  library.def(
      "gradient_norm_penalty_backward(Tensor grad_penalty, Tensor gradient, Tensor norms, float weight, float target,"
      " float power, bool one_sided) -> Tensor");
  library.def("piecewise_linear(Tensor x, float closed_slope, float lower, float upper) -> (Tensor y, Tensor gates)");
  library.def("piecewise_linear_(Tensor(a!) x, float closed_slope, float lower, float upper) -> Tensor gates");
  library.def("gate(Tensor x, Tensor gates, float closed_slope, int[] stride) -> Tensor");
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

  // A critic's layers inside a penalty, with the arguments that they have in PyTorch, and its graph; see critic.h.
  constexpr double infinity = std::numeric_limits<double>::infinity();
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
  layer("relu", [](const Tensor& x, bool inplace) { return activation(x, 0, 0, infinity, inplace); }, input, inplace);
  layer("relu_", [](const Tensor& x) { return activation(x, 0, 0, infinity, true); }, input);
  layer("relu6", [](const Tensor& x, bool inplace) { return activation(x, 0, 0, 6, inplace); }, input, inplace);
  layer("relu6_", [](const Tensor& x) { return activation(x, 0, 0, 6, true); }, input);
  layer(
      "leaky_relu",
      [](const Tensor& x, double slope, bool inplace) { return activation(x, slope, 0, infinity, inplace); }, input,
      slope, inplace);
  layer(
      "leaky_relu_", [](const Tensor& x, double slope) { return activation(x, slope, 0, infinity, true); }, input,
      slope);
  layer(
      "hardtanh",
      [](const Tensor& x, double lower, double upper, bool inplace) { return activation(x, 0, lower, upper, inplace); },
      input, min_val, max_val, inplace);
  layer(
      "hardtanh_", [](const Tensor& x, double lower, double upper) { return activation(x, 0, lower, upper, true); },
      input, min_val, max_val);
  py::class_<CriticGraph>(module, "CriticGraph")
      .def(py::init<const Tensor&, const Tensor&>(), py::arg("scores"), py::arg("points"))
      .def_property_readonly("curved", &CriticGraph::curved)
      .def_property_readonly("compiled", &CriticGraph::compiled)
      .def("let_go_of_inputs", &CriticGraph::let_go_of_inputs)
      .def("without_dead_work", &CriticGraph::without_dead_work);
}
