"""One penalty with its backward, against the textbook's: time, floating-point operations, peak memory."""

import pytest

from conftest import Comparison
from costs import CRITICS, flops, mlp, peak_memory, update
from wgan_fast import gradient_penalty, reference

TINY = {"tiny": (lambda: mlp(2, 16, 1), (8, 2))}  # nothing but overhead


@pytest.mark.parametrize("name", [*CRITICS, *TINY])
def bench_gradient_penalty(compare: Comparison, name: str) -> None:
    make, shape = (CRITICS | TINY)[name]
    critic = make().to(compare.device)
    for measure in (flops, peak_memory):
        textbook, ours = (measure(penalty, critic, shape) for penalty in (reference.gradient_penalty, gradient_penalty))
        compare.benchmark.extra_info[f"{measure.__name__}_of_the_textbook"] = ours / textbook
    compare(
        lambda: update(gradient_penalty, critic, shape),
        textbook=lambda: update(reference.gradient_penalty, critic, shape),
    )
