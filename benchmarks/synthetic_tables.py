"""Quality of synthetic tables beside CTGAN's, by SDMetrics, after equal processor time.

    pip install ctgan==0.12.1 sdmetrics
    python benchmarks/synthetic_tables.py [SECONDS [SEEDS]]

Writes ``benchmarks/results/tables/quality.json``: for each table the scores of SDMetrics' quality report, from 0 to 1:
column shapes (1 - Kolmogorov-Smirnov or total variation distance) and pair trends (correlations, contingency tables).
Both train in one thread until their processor time is used up; CTGAN with its defaults, wgan_fast with those of
``wgan_fast.train.fit``. CTGAN's license is the Business Source License: it is a rival here and no dependency.
"""

import json
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import torch
from sklearn import datasets

from wgan_fast.train import fit

RESULT = Path(__file__).parent / "results" / "tables" / "quality.json"


def diabetes() -> pandas.DataFrame:
    """442 patients: numbers of several precisions, and the sex."""
    frame = datasets.load_diabetes(as_frame=True, scaled=False).frame
    return frame.assign(sex=frame["sex"].map({1.0: "f", 2.0: "m"}))


def cancer() -> pandas.DataFrame:
    """569 tumours: 30 numbers, most of them skewed and correlated, and the diagnosis."""
    frame = datasets.load_breast_cancer(as_frame=True).frame
    return frame.assign(target=frame["target"].map({0: "malignant", 1: "benign"}))


def customers() -> pandas.DataFrame:
    """2,000 rows drawn: dependent categories, a heavy tail with many zeros, dates, two clusters."""
    random = np.random.default_rng(0)
    city = random.choice(["Bern", "Zug", "Chur", "Genf"], 2000, p=[0.5, 0.3, 0.15, 0.05])
    plan = np.where(random.random(2000) < np.where(city == "Bern", 0.8, 0.3), "basic", "plus")
    age = np.clip(random.normal(np.where(plan == "plus", 55, 33), 9), 18, 95).round().astype(int)
    spent = np.where(random.random(2000) < 0.3, 0, random.pareto(2.5, 2000) * age).round(2)
    since = pandas.Timestamp("2015-01-01") + pandas.to_timedelta((random.beta(2, 5, 2000) * 3000).astype(int), unit="D")
    return pandas.DataFrame({"age": age, "city": city, "plan": plan, "spent": spent, "since": since})


def ours(frame: pandas.DataFrame, seconds: float, seed: int):
    def train(steps: int) -> object:
        return fit(
            frame, steps=steps, seed=seed, out=tempfile.mkdtemp() + "/run", evaluate_every=10**9, sample_every=10**9
        )

    model, spent = _within(seconds, train, first=100)
    return model.sample(len(frame), seed=seed), spent


def ctgan(frame: pandas.DataFrame, seconds: float, seed: int):
    from ctgan import CTGAN

    dates = frame.select_dtypes("datetime").columns
    given = frame.assign(**{name: frame[name].astype("int64") for name in dates})
    discrete = [name for name in frame if not pandas.api.types.is_numeric_dtype(given[name])]

    def train(epochs: int) -> object:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (CTGAN draws from it)
        model = CTGAN(epochs=epochs, enable_gpu=False)
        model.fit(given, discrete)
        return model

    model, spent = _within(seconds, train, first=10)
    sample = model.sample(len(frame))
    return sample.assign(**{name: pandas.to_datetime(sample[name]).astype(frame[name].dtype) for name in dates}), spent


def _within(seconds: float, train: Callable[[int], object], first: int):
    """What ``train(count)`` makes with the count that takes this processor time, extrapolated from two short calls."""
    times = []
    for count in (first, 2 * first):
        start = time.process_time()
        train(count)
        times.append(time.process_time() - start)
    each = max((times[1] - times[0]) / first, 1e-6)
    count = max(first, int((seconds - times[0]) / each) + first)
    start = time.process_time()
    made = train(count)
    return made, time.process_time() - start


def quality(real: pandas.DataFrame, synthetic: pandas.DataFrame, spent: float) -> dict[str, float]:
    """SDMetrics' scores, beside the processor time of the training."""
    from sdmetrics.reports.single_table import QualityReport

    kinds = {"number": "numerical", "datetime": "datetime"}
    columns = {
        name: {"sdtype": next((kinds[kind] for kind in kinds if name in real.select_dtypes(kind)), "categorical")}
        for name in real
    }
    report = QualityReport()
    report.generate(real, synthetic, {"columns": columns}, verbose=False)
    scores = dict(report.get_properties().to_numpy().tolist())
    return {name: round(value, 4) for name, value in scores.items()} | {"Seconds": round(spent, 1)}


def main(seconds: float = 60.0, seeds: int = 2) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found: dict[str, object] = {"seconds": seconds, "machine": platform.processor() or platform.machine(), "tables": {}}
    for table in (diabetes, cancer, customers):
        frame = table()
        scores = {
            maker.__name__: [quality(frame, *maker(frame, seconds, seed)) for seed in range(seeds)]
            for maker in (ours, ctgan)
        }
        print(table.__name__, json.dumps(scores), flush=True)
        found["tables"] |= {table.__name__: {"rows": len(frame), "columns": frame.shape[1]} | scores}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3]))
