"""Where ours is slower and why, and where times contradict one another."""

from collections.abc import Callable
from statistics import median

from results import COMPARED, Entry, Results, apart, baselines, ratio, value
from tables import compared, label, significant, table

CHECKS = (
    "ours first checks its arguments in Python: 1 to 2.2 us, and 10 to 25 us where an array has just filled the caches "
    "and displaced that code (by hand, against the operator alone)"
)
OPTIMIZER = (
    "12 us are PyTorch's, around the step of any optimizer (an empty one, by hand); in the others ours collects "
    "gradients and states, checks the settings and counts the steps"
)
IMPORTS = "`import wgan_fast` includes `import torch`"
FUSED = "XLA fuses the elementwise work between the products, and writes into the same memory at each step"
NOISE = "the quartiles overlap: this run shows no clear difference"
ONE_BATCH = "real and fake samples are scored in one batch, and with one hidden layer that is most of the memory"
MEMORY = "memory bandwidth limits both; the quartiles overlap"
NEW = "ours allocates its output, like `clone`, and the system must first map the new pages"
MAPPED = (
    "mapping new pages takes most of the time, that of `clone` too; where pages are used again, `piecewise_linear` "
    "takes 0.98 of the copy's time and `apply_mask` 0.82 (by hand)"
)
PAGES = (
    "new pages of the output cost more than the arithmetic, and who gets mapped ones depends on the function that ran "
    "before; after the same one, 0.93 to 0.98 (by hand)"
)
PACKS = "ours also packs one bit per element, which is saved for backward instead of the output"
OVERHEAD = "overhead dominates this small step: ours calls fewer PyTorch operators but runs up to 0.5 ms more Python"
PROBED = "calls 1, 2, 4, 8, ... also look whether the rows are independent, with a copy of the parameters"
SAME = "the same, to a thousandth"
GRAPH = "of kernels in a CUDA graph, without the host's time; what is missing was not profiled"
LAUNCHES = (
    "launches limit this small step, and XLA fuses the elementwise work of the whole update (not profiled); of ours, "
    '`backend="compile"` is the fastest here'
)
EAGER = 'eager calls keep the GPU waiting for Python; `backend="auto"` captures where it can'
NO_BFLOAT16 = "on this CPU, PyTorch's bfloat16 matrix products are slower than float32 ones"
#: Why ours is slower: (suite, baseline, words, reason). The words must be in the case or name the instruction set. The
#: first matching reason is shown that the measurement does not contradict (HOLDS).
REASONS: list[tuple[str, str, set[str], str]] = [
    ("interpolate", "lerp", set(), MEMORY),
    ("interpolate", "lerp", set(), CHECKS),
    ("interpolate", "lerp", {"few long rows"}, PAGES),
    ("gradient_norm_penalty", "textbook", set(), NOISE),
    ("curved_layer", "pytorch", set(), NOISE),
    ("curved_penalty", "textbook", set(), NOISE),
    ("gradient_penalty", "textbook", {"tiny"}, OVERHEAD),
    ("critic_step", "jax", set(), NOISE),
    ("critic_step", "jax", {"cpu"}, FUSED),
    ("critic_step", "jax", {"cuda", "toy"}, LAUNCHES),
    ("time_to_quality", "joint", set(), NOISE),
    ("time_to_quality", "textbook", set(), NOISE),
    ("call", "operator", {"RMSprop.step"}, OPTIMIZER),
    ("call", "operator", set(), CHECKS),
    ("critic_step", "joint", {"cuda", "eager"}, EAGER),
    ("critic_step", "fused", {"cuda", "eager"}, EAGER),
    *(("critic_step", rival, set(), NOISE) for rival in ("captured", "fused", "joint")),
    ("clip_weights_", "foreach", set(), CHECKS),
    ("clip_weights_", "reference", set(), MEMORY),
    ("clipped", "foreach", set(), CHECKS),
    ("clipped", "textbook", set(), CHECKS),
    ("piecewise_linear", "leaky_relu", set(), PACKS),
    ("critic_step", "textbook", {"cuda", "eager"}, EAGER),
    ("bandwidth", "copy", {"cuda"}, GRAPH),
    ("bandwidth", "clone", {"cuda"}, GRAPH),
    ("bandwidth", "copy", set(), MEMORY),
    ("bandwidth", "copy", set(), NEW),
    *(
        ("bandwidth", rival, {kernel}, MAPPED)
        for rival in ("copy", "clone")
        for kernel in ("piecewise_linear", "apply_mask")
    ),
    ("growth", "textbook", set(), OVERHEAD),
    ("growth", "fused", set(), OVERHEAD),
    ("growth", "textbook, peak memory", {"batch"}, PROBED),
    ("curved_penalty", "textbook, peak memory", set(), SAME),
    ("growth", "textbook, peak memory", {"depth", "1"}, ONE_BATCH),
    ("critic_step", "textbook", {"cpu", "bfloat16"}, NO_BFLOAT16),
    ("critic_step", "fused", {"cpu", "bfloat16"}, NO_BFLOAT16),
    ("critic_step", "joint", {"cpu", "bfloat16"}, NO_BFLOAT16),
    ("import", "torch", set(), IMPORTS),
]
FEW_MICROSECONDS, BEYOND_CACHES = 60e-6, 8 * 2**20  # seconds, of a slow CPU too; bytes
HOLDS: dict[str, Callable[[Entry, str], bool]] = {
    CHECKS: lambda entry, baseline: value(entry, "ours") - value(entry, baseline) < FEW_MICROSECONDS,
    FUSED: lambda entry, baseline: (ratio(entry, baseline) or 0) >= 0.9,
    MEMORY: lambda entry, baseline: entry.get("bytes", 0) > BEYOND_CACHES and not apart(entry, baseline),
    NEW: lambda entry, _: (ratio(entry, "clone") or 0) >= 1,
    MAPPED: lambda entry, _: (ratio(entry, "clone") or 0) >= 0.9,
    PAGES: lambda entry, baseline: entry.get("bytes", 0) > BEYOND_CACHES and (ratio(entry, baseline) or 0) >= 0.75,
    OVERHEAD: lambda entry, baseline: value(entry, "ours") - value(entry, baseline) < 5e-4,
    PROBED: lambda entry, baseline: (ratio(entry, "textbook", "peak_bytes") or 0) >= 0.9,
    SAME: lambda entry, _: (ratio(entry, "textbook", "peak_bytes") or 0) >= 0.999,
    NO_BFLOAT16: lambda entry, _: (ratio(entry, "joint_bfloat16") or 0) >= 1,
    NOISE: lambda entry, baseline: not apart(entry, baseline),
    PACKS: lambda entry, baseline: (ratio(entry, baseline) or 0) >= 0.75,
    IMPORTS: lambda entry, baseline: (ratio(entry, baseline) or 0) >= 0.8,
}
UNEXPLAINED = "not explained yet"

APART = 1.25  # a larger ratio between two timings of the same work is not noise
MIDDLE = ({"measure": "batch", "value": 128}, {"measure": "width", "value": 256})  # the same critic and batch
UPDATES = 5  # critic steps in an iteration of training


def losses(results: Results) -> list[tuple[Entry, str, str]]:
    """Every comparison in which ours takes more time or memory: (entry, baseline, quantity)."""
    return [
        (entry, baseline, what)
        for what in COMPARED
        for entry in results.entries
        for baseline in baselines([entry], what)
        if (found := ratio(entry, baseline, what)) is not None and found < 1
    ]


def against(baseline: str, what: str) -> str:
    return baseline if what == "seconds" else f"{baseline}, {COMPARED[what]}"


def reason(results: Results, entry: Entry, baseline: str, what: str) -> str:
    words = {*map(str, entry["case"].values()), results.environment["capability"]}
    compared = entry["suite"], against(baseline, what)
    fitting = [why for *of, needed, why in REASONS if tuple(of) == compared and needed <= words]
    return next((why for why in fitting if why not in HOLDS or HOLDS[why](entry, baseline)), UNEXPLAINED)


Grouped = dict[tuple[str, str, str], list[tuple[Entry, str, str]]]


def by_reason(results: Results) -> Grouped:
    """Groups losses: (suite, baseline, reason) -> losses."""
    grouped: Grouped = {}
    for loss in losses(results):
        entry, baseline, what = loss
        grouped.setdefault((entry["suite"], against(baseline, what), reason(results, *loss)), []).append(loss)
    return grouped


def _counted(results: Results) -> str:
    of = sum(len(baselines([entry], what)) for what in COMPARED for entry in results.entries)
    return f"{len(losses(results))} of {of} comparisons are below 1"


def slower(results: Results) -> str:
    """A table of all losses, case by case."""
    rows = [
        [suite, baseline, "; ".join(f"{label(entry)} {compared(entry, *what)}".strip() for entry, *what in found), why]
        for (suite, baseline, why), found in by_reason(results).items()
    ]
    header = ["benchmark", "against", "cases, times as fast", "why"]
    return f"{_counted(results)}" + (f":\n\n{table(header, rows, '---')}" if rows else ".")


def slower_in_short(results: Results) -> str:
    """A table of the losses by reason: how many, and the worst."""
    rows = []
    for (suite, baseline, why), found in by_reason(results).items():
        lowest = min(found, key=lambda loss: ratio(*loss) or 0)
        _, rival, what = found[0]
        of = sum(ratio(entry, rival, what) is not None for entry in results.select(suite))
        cases = f"{len(found)} of {of}"
        rows.append([suite, baseline, cases, compared(*lowest), why])
    header = ["benchmark", "against", "cases", "times as fast, at worst", "why"]
    return f"{_counted(results)}" + (f":\n\n{table(header, rows, '---')}" if rows else ".")


def contradictions(results: Results) -> str:
    """Timings that contradict one another, a sign that other programs disturbed the run."""
    found = []

    def look(of: str, where: str, entries: list[Entry]) -> list[float]:
        times = [seconds for entry in entries if (seconds := value(entry, "textbook"))]
        if times and max(times) > APART * min(times):
            low, high = (significant(1e3 * seconds) for seconds in (min(times), max(times)))
            found.append(f"the same textbook of {of} took {low} to {high} ms {where}")
        return times

    for name in dict.fromkeys(entry["case"]["name"] for entry in results.select("critic_step")):
        textbook = look(name, "beside ours in different variants", results.select("critic_step", name=name))
        for whole in results.select("training", name=name):
            iteration = value(whole, "textbook")
            if textbook and iteration and UPDATES * median(textbook) > APART * iteration:
                found.append(
                    f"the textbook's step of {name} took {significant(1e3 * median(textbook))} ms, an iteration of "
                    f"training with {UPDATES} of them {significant(1e3 * iteration)} ms"
                )
    look(
        "the growth's middle",
        "in its two rows",
        [entry for case in MIDDLE for entry in results.select("growth", **case)],
    )
    if not found:
        return ""
    told = "**The machine's speed changed during the run. Ratios are interleaved; do not compare times of two rows:**"
    return f"{told} {'; '.join(found)}."
