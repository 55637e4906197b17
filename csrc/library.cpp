// The schema of every operator, and the module `_C`: importing it registers them, and it knows how it was built.
#include <pybind11/pybind11.h>
#include <torch/library.h>
#include <torch/version.h>

#ifdef WGAN_FAST_CUDA
#include <cuda_runtime_api.h>
#endif

#include "kernels/instruction_set.h"

TORCH_LIBRARY(wgan_fast, library) {
  library.def("interpolate(Tensor real, Tensor fake, Tensor t) -> Tensor");
  library.def(
      "gradient_norm_penalty(Tensor gradient, float weight, float target, float power, bool one_sided)"
      " -> (Tensor penalty, Tensor norms)");
  library.def(
      "gradient_norm_penalty_backward(Tensor grad_penalty, Tensor gradient, Tensor norms, float weight, float target,"
      " float power, bool one_sided) -> Tensor");
  library.def("clip_weights_(Tensor(a!)[] tensors, float bound) -> ()");
}

namespace py = pybind11;

PYBIND11_MODULE(_C, module) {
  module.def("build_info", [] {
    py::dict info;
    info["version"] = WGAN_FAST_VERSION;
    info["torch"] = TORCH_VERSION;
    info["compiler"] = __VERSION__;
    info["instruction_set"] = wgan_fast::instruction_set();
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
}
