"""What a reader must know before the tables: where ours is slower and why, and where times contradict one another."""

from collections.abc import Callable
from statistics import median

from tables import COMPARED, Entry, Results, apart, baselines, label, ratio, significant, table, times, value

CHECKS = "PyTorch's form checks no arguments; ours does, and names the wrong one: some microseconds"
KERNELS = "both are one kernel, of about the same time; lerp checks no arguments, and ours does in Python first"
NOISE = "the quartiles overlap: this run cannot tell them apart"
ONE_BATCH = "real and fake samples are scored in one batch, and with one hidden layer there is little else to keep"
MEMORY = "both are limited by memory; the quartiles overlap"
NEW = "ours writes into new memory, whose pages the system must provide, as for `clone`"
PACKS = "ours also packs one bit for each element, which is kept instead of the whole output"
OVERHEAD = "calls of Python and PyTorch's dispatcher alone, of which both have as many"
NO_BFLOAT16 = "PyTorch's products of bfloat16 are slower than those of float32 on a CPU without AVX-512"
#: Why ours is slower: suite, baseline, words that must be in the case or be the CPU's instruction set, reason. The
#: first counts that fits and does not contradict what was measured (HOLDS).
REASONS: list[tuple[str, str, set[str], str]] = [
    ("interpolate", "lerp", set(), MEMORY),
    ("interpolate", "lerp", set(), KERNELS),
    ("gradient_norm_penalty", "textbook", set(), NOISE),
    ("gradient_penalty", "textbook", {"tiny"}, OVERHEAD),
    ("critic_step", "jax", set(), NOISE),
    ("clip_weights_", "foreach", set(), CHECKS),
    ("clip_weights_", "reference", set(), MEMORY),
    ("clipped", "foreach", set(), CHECKS),
    ("clipped", "textbook", set(), CHECKS),
    ("piecewise_linear", "leaky_relu", set(), PACKS),
    ("bandwidth", "copy", set(), MEMORY),
    ("bandwidth", "copy", set(), NEW),
    ("growth", "textbook", {"width", "32"}, OVERHEAD),
    ("growth", "textbook", {"width", "64"}, OVERHEAD),
    ("growth", "textbook", {"depth", "1"}, OVERHEAD),
    ("growth", "textbook, peak memory", {"depth", "1"}, ONE_BATCH),
    ("critic_step", "textbook", {"cpu", "bfloat16", "AVX2"}, NO_BFLOAT16),
    ("critic_step", "fused", {"cpu", "bfloat16", "AVX2"}, NO_BFLOAT16),
    ("import", "torch", set(), "`import wgan_fast` includes `import torch`"),
]
FEW_MICROSECONDS, BEYOND_CACHES = 40e-6, 8 * 2**20  # seconds, of a slow CPU too; bytes
HOLDS: dict[str, Callable[[Entry, str], bool]] = {
    CHECKS: lambda entry, baseline: value(entry, "ours") - value(entry, baseline) < FEW_MICROSECONDS,
    KERNELS: lambda entry, baseline: HOLDS[CHECKS](entry, baseline) or (ratio(entry, baseline) or 0) >= 0.7,
    MEMORY: lambda entry, baseline: entry.get("bytes", 0) > BEYOND_CACHES and not apart(entry, baseline),
    NEW: lambda entry, _: (ratio(entry, "clone") or 0) >= 1,
    OVERHEAD: lambda entry, baseline: not apart(entry, baseline),
    NOISE: lambda entry, baseline: not apart(entry, baseline),
}
UNEXPLAINED = "not explained yet"

APART = 1.5  # the same work, timed twice: more than that is not noise
UPDATES = 5  # of the critic in an iteration of training


def losses(results: Results) -> list[tuple[Entry, str, str]]:
    """Every comparison in which ours takes more, of whatever: the case, the baseline, what is compared."""
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


def slower(results: Results) -> str:
    """All of them, grouped by reason."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for entry, baseline, what in losses(results):
        noisy = "~" if what == "seconds" and not apart(entry, baseline) else ""
        case = f"{label(entry)} {noisy}{times(ratio(entry, baseline, what))}".strip()
        key = entry["suite"], against(baseline, what), reason(results, entry, baseline, what)
        grouped.setdefault(key, []).append(case)
    counted = sum(len(baselines([entry], what)) for what in COMPARED for entry in results.entries)
    summary = f"{sum(map(len, grouped.values()))} of {counted} comparisons are below 1"
    if not grouped:
        return f"{summary}."
    rows = [[suite, baseline, "; ".join(cases), why] for (suite, baseline, why), cases in grouped.items()]
    header = ["benchmark", "against", "cases, times as fast", "why"]
    return f"{summary} (~: the quartiles overlap):\n\n{table(header, rows, '---')}"


def contradictions(results: Results) -> str:
    """Times that cannot all be those of an undisturbed machine."""
    found = []
    for name in dict.fromkeys(entry["case"]["name"] for entry in results.select("critic_step")):
        variants = results.select("critic_step", name=name)
        textbook = [seconds for entry in variants if (seconds := value(entry, "textbook"))]
        if not textbook:
            continue
        if max(textbook) > APART * min(textbook):
            low, high = (significant(1e3 * seconds) for seconds in (min(textbook), max(textbook)))
            found.append(f"the same textbook of {name} took {low} to {high} ms beside ours in different variants")
        for whole in results.select("training", name=name):
            update, iteration = median(textbook), value(whole, "textbook")
            if iteration and UPDATES * update > APART * iteration:
                found.append(
                    f"the textbook's update of {name} took {significant(1e3 * update)} ms, an iteration of training, "
                    f"which has {UPDATES} of them, {significant(1e3 * iteration)} ms"
                )
    if not found:
        return ""
    return f"**The machine was disturbed, and these numbers must be measured again:** {'; '.join(found)}."
