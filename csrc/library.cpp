// The schema of every operator, and the module `_C`: importing it registers them, and it knows how it was built. What it
// offers beside them are the parts of a critic's forward inside a penalty.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>
#include <torch/version.h>

#ifdef WGAN_FAST_CUDA
#include <cuda_runtime_api.h>
#endif

#include "kernels/instruction_set.h"
#include "ops/critic.h"

TORCH_LIBRARY(wgan_fast, library) {
  library.def("interpolate(Tensor real, Tensor fake, Tensor t) -> Tensor");
  library.def(
      "gradient_norm_penalty(Tensor gradient, float weight, float target, float power, bool one_sided)"
      " -> (Tensor penalty, Tensor norms)");
  library.def(
      "gradient_norm_penalty_backward(Tensor grad_penalty, Tensor gradient, Tensor norms, float weight, float target,"
      " float power, bool one_sided) -> Tensor");
  library.def(
      "piecewise_linear(Tensor input, float closed_slope, float lower, float upper) -> (Tensor output, Tensor gates)");
  library.def("piecewise_linear_(Tensor(a!) input, float closed_slope, float lower, float upper) -> Tensor gates");
  library.def("gate(Tensor input, Tensor gates, float closed_slope, int[] stride) -> Tensor");
  library.def("clip_weights_(Tensor(a!)[] tensors, float bound) -> ()");
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

  // A critic's layers inside a penalty, and its graph; see critic.h.
  module.def("linear", linear);
  module.def("convolution", convolution);
  module.def("prelu", prelu);
  module.def("activation", activation);
  py::class_<CriticGraph>(module, "CriticGraph")
      .def(py::init<const Tensor&, const Tensor&>(), py::arg("scores"), py::arg("points"))
      .def_property_readonly("piecewise_linear", &CriticGraph::piecewise_linear)
      .def("let_go_of_inputs", &CriticGraph::let_go_of_inputs)
      .def("without_dead_work", &CriticGraph::without_dead_work);
}
