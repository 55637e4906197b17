"""Times ours and the baselines in interleaved rounds. pytest-benchmark's ``extra_info`` gets the fields of an entry
of ``results.py``.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from results import commit
from wgan_fast.bench import chill, clock, interleaved, quartiles, rounds_within

SECONDS = 3.0  # for one comparison, after its warm-up
WARM_UP = 3
MEBIBYTES_COPIED = 64
COMMIT = pytest.StashKey[str | None]()


class Comparison:
    """Times a function against baselines; ``benchmark`` stores the result."""

    def __init__(self, benchmark: Any, device: torch.device, copy_bandwidth: Callable[[torch.device], float]) -> None:
        self.benchmark = benchmark
        self.device = device
        self._copy_bandwidth = copy_bandwidth

    def __call__(
        self,
        ours: Callable[[], object],
        *,
        calls: int = 1,
        bytes_moved: int | None = None,
        **baselines: Callable[[], object],
    ) -> None:
        """A round is ``calls`` consecutive calls of each function; with several calls the caches are warm.
        ``bytes_moved`` are the bytes that ours must read and write.
        """
        now = clock(self.device)
        ours, *others = (_repeated(function, calls) for function in (ours, *baselines.values()))
        baselines = dict(zip(baselines, others, strict=True))
        times: dict[str, list[float]] = {name: [] for name in baselines}

        def time_baselines() -> None:
            for name, baseline in baselines.items():
                chill(self.device)
                start = now()
                baseline()
                times[name].append(now() - start)
            chill(self.device)

        for _ in range(WARM_UP):
            for function in (ours, *others):
                function()
        rounds = rounds_within({"ours": ours, **baselines}, self.device, SECONDS)
        self.benchmark.pedantic(ours, setup=time_baselines, rounds=rounds)
        times = {"ours": self.benchmark.stats.stats.data, **times}
        info = self.benchmark.extra_info
        info["seconds"] = {name: [q / calls for q in quartiles(seconds)] for name, seconds in times.items()}
        median = info["seconds"]["ours"][1]
        if bytes_moved is not None:
            rate = bytes_moved / median
            info["bytes"], info["GB/s"] = bytes_moved, rate / 1e9
            info["percent_of_copy"] = 100 * rate / self._copy_bandwidth(self.device)

    def count(self, what: str, **counts: float) -> None:
        """Stores counts, provider -> number."""
        self.benchmark.extra_info[what] = counts


def _repeated(function: Callable[[], object], calls: int) -> Callable[[], object]:
    def repeated() -> None:
        for _ in range(calls):
            function()

    return function if calls == 1 else repeated


@pytest.fixture(scope="session")
def copy_bandwidth() -> Callable[[torch.device], float]:
    """Bytes per second that a copy reads and writes; measured once per device."""
    found: dict[torch.device, float] = {}

    def measure(device: torch.device) -> float:
        if device not in found:
            source = torch.rand(MEBIBYTES_COPIED * 2**18, device=device)
            target = torch.empty_like(source)
            times = interleaved({"copy": lambda: target.copy_(source)}, device, 1.0)["copy"]
            found[device] = 2 * source.nbytes / statistics.median(times)
        return found[device]

    return measure


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return torch.device(request.param)


@pytest.fixture
def compare(
    device: torch.device, benchmark: Any, copy_bandwidth: Callable[[torch.device], float]
) -> Comparison:  # device is the first fixture, because it may skip
    torch.manual_seed(0)
    return Comparison(benchmark, device, copy_bandwidth)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COMMIT] = commit()  # before a result file modifies the checkout


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    output_json["commit"] = config.stash[COMMIT]


def device_time() -> float:
    return clock(torch.device("cuda"))()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.benchmark(timer=device_time))
        elif "benchmark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.benchmark(timer=time.perf_counter))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    terminalreporter.section("how many times faster than the baseline (medians, one run, in turn)")
    for result in session.benchmarks:
        seconds = result.extra_info.get("seconds")
        if result.has_error or not seconds:
            continue
        first, median, third = seconds["ours"]
        ratios = [f"{name} {quartile[1] / median:.2f}" for name, quartile in seconds.items() if name != "ours"]
        noisy = "   (noisy)" if third - first > median / 2 else ""
        line = f"{result.name:<70} {median * 1e6:>10.1f} us   {'   '.join(ratios)}{noisy}"
        terminalreporter.write_line(line)
