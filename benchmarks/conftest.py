"""Times ours and the baselines in interleaved rounds. pytest-benchmark's ``extra_info`` gets the fields of an entry
of ``results.py``.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import wgan_fast.bench
from rehearsal import REHEARSED, unless_rehearsed
from results import commit, made
from rivals import captured
from wgan_fast.bench import chill, clock, interleaved, quartiles, rounds_within

SECONDS = unless_rehearsed(3.0, 0.01)  # for one comparison, after its warm-up
WARM_UP = unless_rehearsed(3, 1)
MEBIBYTES_COPIED = {"cpu": 64, "cuda": unless_rehearsed(1024, 1)}  # on a GPU far more than its L2 cache holds
if REHEARSED:
    wgan_fast.bench.L2_BYTES = 2**10
COMMIT = pytest.StashKey[str | None]()


class Comparison:
    """Times a function against baselines; ``benchmark`` stores the result."""

    def __init__(self, benchmark: Any, device: torch.device, copy_bandwidth: Callable[[torch.device], float]) -> None:
        self.benchmark = benchmark
        self.device = device
        self._copy_bandwidth = copy_bandwidth
        self.failures: list[str] = []

    def __call__(
        self,
        ours: Callable[[], object],
        *,
        calls: int = 1,
        bytes_moved: int | None = None,
        in_graph: bool = False,
        seconds: float = SECONDS,
        **baselines: Callable[[], object],
    ) -> None:
        """A round is ``calls`` consecutive calls of each function; with several calls the caches are warm. With
        ``in_graph`` they are one replay of a CUDA graph, so that the host's time is not measured.
        ``bytes_moved`` are the bytes that ours must read and write.

        A baseline that raises an error is left out, and named under ``failed``; the benchmark fails after ours and the
        others were timed.
        """
        now = clock(self.device)
        repeated = _captured if in_graph else _repeated
        ours = repeated(ours, calls)
        failed: dict[str, str] = {}
        for name, baseline in list(baselines.items()):
            try:
                baselines[name] = repeated(baseline, calls)
                baselines[name]()
            except Exception as error:  # noqa: PERF203 (one that fails must not stop the others)
                del baselines[name]
                failed[name] = f"{type(error).__name__}: {error}"
        others = list(baselines.values())
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
        rounds = 2 if REHEARSED else rounds_within({"ours": ours, **baselines}, self.device, seconds)
        self.benchmark.pedantic(ours, setup=time_baselines, rounds=rounds)
        times = {"ours": self.benchmark.stats.stats.data, **times}
        info = self.benchmark.extra_info
        if calls > 1:
            info["calls"] = calls
        info["seconds"] = {name: [q / calls for q in quartiles(seconds)] for name, seconds in times.items()}
        median = info["seconds"]["ours"][1]
        if bytes_moved is not None:
            rate = bytes_moved / median
            info["bytes"], info["GB/s"] = bytes_moved, rate / 1e9
            info["percent_of_copy"] = 100 * rate / self._copy_bandwidth(self.device)
        if failed:
            info["failed"] = failed
            self.failures += [f"{name}: {message}" for name, message in failed.items()]

    def count(self, what: str, **counts: float) -> None:
        """Stores counts, provider -> number."""
        self.benchmark.extra_info[what] = counts


def _repeated(function: Callable[[], object], calls: int) -> Callable[[], object]:
    wait = getattr(function, "wait", lambda: None)  # for work that is not on PyTorch's stream

    def repeated() -> None:
        for _ in range(calls):
            function()
        wait()

    return repeated


def _captured(function: Callable[[], object], calls: int) -> Callable[[], object]:
    return captured(_repeated(function, calls), warm_up=1)


@pytest.fixture(scope="session")
def copy_bandwidth() -> Callable[[torch.device], float]:
    """Bytes per second that a copy reads and writes; measured once per device."""
    found: dict[torch.device, float] = {}

    def measure(device: torch.device) -> float:
        if device not in found:
            source = torch.rand(MEBIBYTES_COPIED[device.type] * 2**18, device=device)
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
) -> Iterator[Comparison]:  # device is the first fixture, because it may skip
    torch.manual_seed(0)
    comparison = Comparison(benchmark, device, copy_bandwidth)
    yield comparison
    assert not comparison.failures, comparison.failures


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """The entry of a finished benchmark, for a report that keeps each at once (gpu/pytest_journal.py)."""
    benchmark = getattr(item, "funcargs", {}).get("benchmark")
    if benchmark is not None and benchmark.stats is not None:
        rounds, case = benchmark.stats.stats.rounds, benchmark.params
        item.user_properties.append(("entry", made(item.name, case, rounds, benchmark.extra_info)))


@pytest.fixture
def restored_precision() -> Iterator[None]:
    """For benchmarks that choose TF32 or cuDNN's autotuner."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32
    yield
    cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32 = before


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COMMIT] = commit()  # before a result file modifies the checkout


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    output_json["commit"] = config.stash[COMMIT]


def device_time() -> float:
    return clock(torch.device("cuda"))()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "benchmark" in getattr(item, "fixturenames", ()):
            item.user_properties.append(("timed", True))  # pytest_runtest_teardown adds the entry
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
