"""The critics of the benchmarks; tiny ones in a rehearsal of the GPU report."""

from costs import CRITICS, resnet
from rehearsal import REHEARSED
from wgan_fast.bench import Workload, convolutional, mlp

TINY: dict[str, Workload] = {
    "toy": (lambda: mlp(2, 8, 2), (8, 2)),
    "dcgan-64": (lambda: convolutional((3, 4, 4, 4, 4), 4, 1, 64), (2, 3, 64, 64)),
    "resnet": (lambda: resnet((2, 2, 2, 2, 2), 32), (2, 3, 64, 64)),
}


def workload(name: str) -> Workload:
    """The critic of that name, and the shape of a batch of samples."""
    return TINY[name] if REHEARSED else CRITICS[name]
