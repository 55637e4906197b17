"""The captured step of convolutional critics with each setting of PyTorch's convolutions on a GPU, against the eager
textbook with the same setting.
"""

from copy import deepcopy

import pytest
import torch

import rivals
from conftest import Comparison
from rehearsal import unless_rehearsed
from wgan_fast import CriticStep
from workloads import workload

SECONDS = unless_rehearsed(1.0, 0.01)


@pytest.mark.usefixtures("restored_precision")
@pytest.mark.parametrize("precision", ["float32", "tf32"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("algorithm", ["heuristic", "benchmark"])
@pytest.mark.parametrize("name", ["dcgan-64", "resnet"])
def bench_convolution_settings(compare: Comparison, name: str, algorithm: str, layout: str, precision: str) -> None:
    """``algorithm`` is cuDNN's choice by heuristic, or by `torch.backends.cudnn.benchmark`."""
    if compare.device.type == "cpu":
        pytest.skip("settings of a GPU")
    torch.backends.cudnn.benchmark = algorithm == "benchmark"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    make, shape = workload(name)
    critic = make().to(compare.device, memory_format=memory_format)
    real, fake = (torch.randn(shape, device=compare.device).to(memory_format=memory_format) for _ in range(2))
    textbook = rivals.textbook(deepcopy(critic), real, fake)
    step = CriticStep(critic, rivals.adam(critic, fused=True, capturable=True), backend="graph")
    compare(lambda: step(real, fake), seconds=SECONDS, textbook=textbook)
