"""Timing: ours and the baseline in turn, round by round, so that a machine whose speed drifts cannot favour either."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

ROUNDS = 60


class Comparison:
    """Times a function against a baseline; both medians and their ratio go to the result file and to the summary."""

    def __init__(self, benchmark: Any, device: torch.device) -> None:
        self.benchmark = benchmark
        self.device = device

    def __call__(self, ours: Callable[[], object], *, calls: int = 1, **baselines: Callable[[], object]) -> None:
        """``calls`` of each, one after the other, make a round: with several, all but the first find what they left in
        the caches.
        """
        ours, *others = (_repeated(function, calls) for function in (ours, *baselines.values()))
        baselines = dict(zip(baselines, others, strict=True))
        times: dict[str, list[float]] = {name: [] for name in baselines}

        def time_baselines() -> None:
            for name, baseline in baselines.items():
                start = time.perf_counter()
                self._finished(baseline)
                times[name].append(time.perf_counter() - start)

        self.benchmark.pedantic(
            self._finished, args=(ours,), setup=time_baselines, rounds=ROUNDS, warmup_rounds=5, iterations=1
        )
        median = self.benchmark.stats.stats.median
        for name, seconds in times.items():
            baseline_median = statistics.median(seconds[-ROUNDS:])
            self.benchmark.extra_info[f"{name}_median"] = baseline_median
            self.benchmark.extra_info[f"{name}_ratio"] = baseline_median / median
        self.benchmark.extra_info["device"] = str(self.device)
        self.benchmark.extra_info["calls"] = calls

    def _finished(self, function: Callable[[], object]) -> None:
        function()
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _repeated(function: Callable[[], object], calls: int) -> Callable[[], object]:
    def repeated() -> None:
        for _ in range(calls):
            function()

    return function if calls == 1 else repeated


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return torch.device(request.param)


@pytest.fixture
def compare(device: torch.device, benchmark: Any) -> Comparison:  # the device first: it may skip
    torch.manual_seed(0)
    return Comparison(benchmark, device)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    terminalreporter.section("how many times faster than the baseline (medians, one run, in turn)")
    results = [result for result in session.benchmarks if not result.has_error]
    for result in results:
        ratios = [
            f"{key.removesuffix('_ratio')} {value:.2f}"
            for key, value in result.extra_info.items()
            if key.endswith("_ratio")
        ]
        ratios += [
            f"{key.removesuffix('_of_the_textbook')} x {value:.2f}"
            for key, value in result.extra_info.items()
            if key.endswith("_of_the_textbook")
        ]
        calls = result.extra_info.get("calls", 1)
        noisy = "   (noisy)" if result.stats.iqr > result.stats.median / 2 else ""
        line = f"{result.name:<70} {result.stats.median / calls * 1e6:>10.1f} us   {'   '.join(ratios)}{noisy}"
        terminalreporter.write_line(line)
    means: dict[str, dict[str, list[float]]] = {}
    for result in results:
        if title := result.extra_info.get("mean_over"):
            for key, value in result.extra_info.items():
                if key.endswith("_ratio"):
                    means.setdefault(title, {}).setdefault(key.removesuffix("_ratio"), []).append(value)
    for title, ratios_to in means.items():
        mean = "   ".join(f"{name} {statistics.geometric_mean(values):.2f}" for name, values in ratios_to.items())
        terminalreporter.write_line(f"geometric mean, {title}: {mean}")
