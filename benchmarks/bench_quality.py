"""Time until a generator of digits is good: whole trainings, with the usual code and with ours, until the exact
Wasserstein distance between 1,000 of its samples and 1,000 real ones is at most a bound that is stated here. The
evaluations are not timed. The seeds are the same, and so are the samples. Rounding differs, so a training may need some
more or fewer iterations with the one than with the other.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import rivals
from wgan_fast import distances
from wgan_fast.bench import mlp, quartiles
from workloads import our_iteration

N_CRITIC, LATENT, BATCH, RATE, SEEDS, EVERY, MOST = 5, 16, 256, 1e-3, (0, 1, 2), 25, 2_000


@functools.cache
def images() -> Tensor:
    """scikit-learn's digits, 8 x 8 grey values in [0, 1]."""
    from sklearn.datasets import load_digits  # of the extra "train", which a report of a GPU does without

    return torch.from_numpy(load_digits().data / 16).float()


def digits(count: int, generator: torch.Generator) -> Tensor:
    return images()[torch.randint(len(images()), (count,), generator=generator)]


SIZE, WIDTH, BOUND = 64, 256, 1.87  #: the bound is twice the distance between two real sets of 1,000
ITERATIONS = {"ours": our_iteration, "textbook": rivals.textbook_iteration, "joint": rivals.joint_iteration}


def _time_to_bound(iterate: Callable[[], object], batch: Callable[[], list[Tensor]], distance: Any) -> float:
    """Seconds of training until the distance is at most BOUND."""
    seconds = 0.0
    for _ in range(MOST // EVERY):
        prepared = [batch() for _ in range(EVERY)]
        start = time.perf_counter()
        for real in prepared:
            iterate(real)
        seconds += time.perf_counter() - start
        if distance() <= BOUND:
            return seconds
    raise AssertionError(f"the distance is {distance():.3f} after {MOST} iterations, and was to be at most {BOUND}")


def _trained(seed: int, provider: str) -> float:
    torch.manual_seed(seed)
    hidden = nn.Linear(LATENT, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()
    generator, critic = nn.Sequential(*hidden, nn.Linear(WIDTH, SIZE)), mlp(SIZE, WIDTH, 3)
    batches: list[Tensor] = []
    iteration = ITERATIONS[provider](generator, critic, batches, (BATCH, LATENT), lr=RATE)
    of_data = torch.Generator().manual_seed(seed)
    held_out, latent = digits(1_000, of_data), torch.randn(1_000, LATENT, generator=of_data)

    def iterate(real: list[Tensor]) -> None:
        batches[:] = real
        iteration()

    def distance() -> float:
        with torch.no_grad():
            return distances.earth_movers_distance(generator(latent), held_out).item()

    return _time_to_bound(iterate, lambda: [digits(BATCH, of_data) for _ in range(N_CRITIC)], distance)


def bench_time_to_quality(benchmark: Any) -> None:
    """In turn, for each seed."""
    times: dict[str, list[float]] = {provider: [] for provider in ITERATIONS}

    def train_all(seed: int) -> None:
        for provider, found in times.items():
            found.append(_trained(seed, provider))

    for seed in SEEDS[:-1]:
        train_all(seed)
    benchmark.pedantic(train_all, args=(SEEDS[-1],))
    benchmark.extra_info["seconds"] = {provider: quartiles(found) for provider, found in times.items()}
