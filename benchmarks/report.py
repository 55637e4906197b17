"""Generates the README's sentences on speed, docs/benchmarks.md, docs/scaling.md and docs/figures/.

    python benchmarks/report.py [--check]

``--check`` writes nothing; it fails if a text differs from what the results give, or a figure was drawn from others.
"""

import argparse
import difflib
import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import figures
import scaling
from caveats import contradictions, slower, slower_in_short
from results import PASSED, ROOT, Entry, Results, ratio, value
from tables import compared, comparisons, geometric_mean, quartiles, share_of_limit, significant, table, times

OPENING, CLOSING = "<!-- results -->", "<!-- /results -->"
GENERATED = "<!-- Written by `make report` from benchmarks/results/; changes belong there or into benchmarks/. -->"
DIFF_LINES = 40

#: Suite -> (title, what is timed) in docs/benchmarks.md, case by case.
SUITES = {
    "gradient_penalty": ("A penalty with its backward", "`gradient_penalty` and `backward()`."),
    "curved_penalty": (
        "A penalty of a curved critic with its backward",
        "Normalisation or smooth activations: layers below one cost 6 forwards, those above the last one 4.",
    ),
    "scored_penalty": (
        "The critic step with R1, and with R1 + R2",
        "The penalised samples are scored too. `shared` is the strongest eager form: one forward of each batch, one "
        "backward, the fused Adam.",
    ),
    "published_update": (
        "Critics built like published ones",
        "With their own losses, on 32 x 32 images, batch 32. `published` is their published update, with the fused "
        "Adam; StyleGAN2-ADA's with R1, which it takes at every 16th update only.",
    ),
    "training": (
        "A whole iteration of training",
        "Five critic steps, each with fresh fakes, and one generator step.",
    ),
    "time_to_quality": (
        "Time to a generator of a stated quality",
        "Whole trainings on scikit-learn's digits, MLPs, three seeds, until the exact distance between 1,000 generated "
        "and 1,000 real samples is at most twice that between two sets of 1,000 real ones. Evaluations are not timed.",
    ),
    "call": (
        "Small calls",
        "8 samples of 2 numbers: what a call costs beside its work. `operator` is the compiled operator below the "
        "public function, or the formula in plain PyTorch.",
    ),
    "loading": (
        "Reading a batch of 64 images",
        "A folder of 1,000 files, to 64 x 64 pixels, in the training process. `plain` is a Dataset with Pillow in the "
        "DataLoader, which scales each image by itself, as in PyTorch's tutorials.",
    ),
    "interpolate": ("`interpolate`", "`reference` is the formula in plain PyTorch, `lerp` one `torch.lerp`."),
    "gradient_norm_penalty": (
        "The penalty of a gradient, and its derivative",
        "`textbook` is `norm`, `mean` and autograd.",
    ),
    "piecewise_linear": (
        "LeakyReLU and its derivative",
        "`leaky_relu` is PyTorch's; `reference` packs the bits in plain PyTorch and is not meant to be fast.",
    ),
    "curved_layer": (
        "A curved layer with its first and second derivative",
        "In float32. `pytorch` is PyTorch's layer, whose second derivative is composed of elementary operators.",
    ),
    "clip_weights_": ("`clip_weights_`", "`foreach` is `torch._foreach_clamp_min_` and `_max_`."),
    "clipped": ("`clip_weights_` by number of weights", "`textbook` is a `clamp_` for each tensor."),
    "rmsprop": (
        "RMSprop with clipping",
        "`foreach` is `torch.optim.RMSprop(foreach=True)` and `_foreach` clamps; `textbook` loops over the weights. "
        "Warm: ten steps in a row. Cold: one step, after a step of the others.",
    ),
    "bandwidth": (
        "Kernels on large arrays",
        "`copy` moves the same number of bytes into existing memory, `clone` into new memory.",
    ),
    "convolution_settings": (
        "The captured step with each setting of convolutions",
        "The choice of cuDNN's algorithms (`torch.backends.cudnn.benchmark`), memory format, and precision. `textbook` "
        "is eager, with the same settings.",
    ),
    "import": ("Import", "`import wgan_fast`, which includes `import torch`, in a new process."),
    "install": ("Installation", "`pip install` from the sources, once."),
}
#: Critic -> its name in the tables.
TITLES = {
    "toy": "toy: MLP 2-512x3, batch 256",
    "tabular": "tabular: MLP 300-256x2, batch 500",
    "wide": "wide: MLP 784-1024x3, batch 128",
    "dcgan": "DCGAN-32, batch 64",
    "mnist": "MNIST-size, batch 50",
    "dcgan-64": "DCGAN-64, batch 64",
    "resnet": "ResNet on 64 x 64, batch 256",
}


def critic_update(results: Results) -> str:
    """A row for each critic, and the geometric means of the ratios."""
    entries = results.select("critic_step")
    if not entries:
        return ""
    columns = {
        "textbook": ("eager", "textbook"),
        "fused textbook": ("eager", "fused"),
        "joint": ("eager", "joint"),
        "JAX": ("jax", "jax"),
        "JAX in TF32": ("jax-tf32", "jax"),
        "bfloat16: joint": ("bfloat16", "joint_bfloat16"),
        "bfloat16: textbook in float32": ("bfloat16", "textbook"),
        "compile: textbook": ("compile", "textbook"),
        "compile: joint": ("compile", "joint"),
        "compile: functional": ("compile", "functional"),
        "compile: traced": ("compile", "traced"),
        "graph: textbook": ("graph", "textbook"),
        "graph: joint": ("graph", "joint"),
        "graph: functional": ("graph", "functional"),
        "graph: textbook in a graph": ("graph", "captured"),
    }
    rows, ratios = [], []
    for name in dict.fromkeys(entry["case"]["name"] for entry in entries):
        of = {entry["case"]["variant"]: entry for entry in results.select("critic_step", name=name)}
        eager = of.get("eager", {})
        ratios.append([ratio(of.get(variant, {}), baseline) for variant, baseline in columns.values()])
        memory, forwards = (
            ratio(eager, "textbook", "peak_bytes"),
            [value(eager, who, "forwards") for who in ("ours", "textbook")],
        )
        ratios[-1].append(memory and 1 / memory)
        rows.append(
            [
                TITLES.get(name, name),
                quartiles(eager, 1e3) if eager else "",
                share_of_limit(eager) if eager else "",
                *(compared(of.get(variant, {}), baseline) for variant, baseline in columns.values()),
                times(ratios[-1][-1]),
                " / ".join(significant(number) for number in forwards) if all(forwards) else "",
            ]
        )
    means = (times(geometric_mean(column) if None not in column else None) for column in zip(*ratios, strict=True))
    rows.append(["geometric mean", "", "", *means, ""])
    header = [
        "critic",
        "ours, ms (quartiles)",
        "% of its products' speed",
        *columns,
        "peak memory, of textbook's (less is better)",
        "forwards, ours / textbook",
    ]
    return table(header, rows)


def environment(results: Results) -> str:
    """What the numbers depend on, and contradictions between them."""
    about = results.environment
    commits = [
        f"{name[:12]}{' with changes that were not committed' if modified else ''}"
        for name, _, modified in (commit.partition("-") for commit in (results.commit or "unknown").split(", "))
    ]
    precision = f"float32 products `{about['float32_matmul_precision']}`"
    if about["cudnn_allows_tf32"] is not None:
        precision += f", convolutions {'may' if about['cudnn_allows_tf32'] else 'do not'} take TF32"
    words = [
        f"{about['threads']} threads",
        about["capability"],
        f"PyTorch {about['torch']}",
        f"Python {about['python']}",
        *([f"JAX {about['jax']}"] if about.get("jax") else []),
        about["system"],
        precision,
        f"commit {' and '.join(commits)}",
    ]
    others = [
        f"{name} ({step['outcome']}" + f", {len(step['failures'])} failed" * bool(step["failures"]) + ")"
        for name, step in results.steps.items()
        if step.get("outcome", PASSED) != PASSED
    ]
    text = ", ".join(words) + "." + (f" Steps that did not pass: {', '.join(others)}." if others else "")
    doubts = contradictions(results)
    return f"{text}\n\n{doubts}" if doubts else text


def section(title: str, *parts: str) -> str:
    """Joins the parts. Empty if the last part is empty, that is, without data."""
    return "\n\n".join([title, *parts]) if parts[-1] else ""


READING = (
    "Times are medians with quartiles. A column named after a baseline shows the speedup of ours over it: the "
    "ratio of the medians of one run, in which calls of both alternated. Below 1 ours is slower; ~ means that the "
    "quartiles overlap. A **forward**, the unit of operations, is one forward through the critic. Peak memory is the "
    "most memory that PyTorch's allocator had allocated at once during a call, above the amount before the call. "
    "**% of its products' speed** is the time of our matrix products and convolutions alone, called again by "
    "themselves, in percent of our whole time: 100 cannot be passed."
)
BASELINES = (
    "The **textbook** is the usual code: eager, real and fake samples scored separately, PyTorch's default Adam. "
    "**fused** uses PyTorch's fused Adam, as ours does; **joint** also scores both in one batch. **functional** "
    "compiles loss and gradients written with `torch.func`; **traced** compiles the joint form, with "
    "`torch._dynamo.config.trace_autograd_ops`. Both use the fused Adam. In JAX the whole update is jitted. The word "
    "before a colon says how ours runs; textbook, fused and joint are always eager."
)
UPDATE = (
    "A step of the critic, eager unless the column says otherwise; bfloat16 is autocast, on a GPU in a CUDA graph{}:"
)
IN_A_ROW = ". The step of an MLP or a DCGAN is timed as a fifth of five in a row, as a training takes them"


def headline(results: Results) -> str:
    """The summary in one sentence."""
    eager, graph = (results.select("critic_step", variant=variant) for variant in ("eager", "graph"))
    penalties = [entry for entry in results.select("gradient_penalty") if entry["case"].get("name") != "tiny"]
    if not eager:
        return ""

    def memory(entries: Sequence[Entry]) -> str:
        shares = [1 / found for entry in entries if (found := ratio(entry, "textbook", "peak_bytes"))]
        return f"{times(min(shares))} to {times(max(shares))}" if shares else ""

    def speed(entries: Sequence[Entry], baseline: str = "textbook") -> str:
        found = sorted((entry for entry in entries if ratio(entry, baseline)), key=lambda entry: ratio(entry, baseline))
        return f"{compared(found[0], baseline)} to {compared(found[-1], baseline)} times" if found else ""

    def against(entries: Sequence[Entry], baselines: dict[str, str]) -> str:
        named = ((speed(entries, baseline), name) for baseline, name in baselines.items())
        return " and ".join(f"{found} as fast as {name}" for found, name in named if found)

    plain = {"textbook": "the textbook's", "joint": "the joint one"}
    parts = [f"a critic step is {against(eager, plain)}"]
    if peak := memory(eager):
        parts[0] += f", with {peak} of the textbook's peak memory"
    # On a GPU the strongest form is a captured one.
    captured = {"textbook": "the eager textbook's", "captured": "the textbook's in a graph"}
    if in_graph := against(graph, captured):
        parts.append(f"in a CUDA graph {in_graph}")
    if penalties:
        parts.append(f"a penalty with its backward {speed(penalties)}, with {memory(penalties)}")
    if curved := results.select("curved_penalty"):
        parts.append(f"that of a curved critic {speed(curved)}, with {memory(curved)}")
    if whole := speed(results.select("training")):
        parts.append(f"a whole iteration of training {whole}")
    return "; ".join(parts) + "."


#: The README's rows: (words, suite, what the case must hold, the usual code, the strongest eager form).
FRONT: list[tuple[str, str, dict[str, str], str, str]] = [
    ("WGAN-GP's penalty with its backward", "gradient_penalty", {}, "textbook", "textbook"),
    ("the same, of a normalised or smooth critic", "curved_penalty", {}, "textbook", "textbook"),
    ("critic update with WGAN-GP", "critic_step", {"variant": "eager"}, "textbook", "joint"),
    ("critic update with R1, with R1 + R2", "scored_penalty", {}, "", "shared"),
    ("whole iteration of training", "training", {}, "textbook", "joint"),
]


def front_table(results: Results) -> str:
    """The ranges over the critics; without "tiny", which is overhead alone."""
    rows = []
    for words, suite, case, usual, strongest in FRONT:
        entries = [entry for entry in results.select(suite, **case) if entry["case"].get("name") != "tiny"]
        if entries:
            peaks = (ratio(entry, who, "peak_bytes") for entry in entries for who in dict.fromkeys((strongest, usual)))
            memory = extent(1 / found for found in peaks if found)
            speeds = (extent(filter(None, (ratio(entry, who) for entry in entries))) for who in (usual, strongest))
            rows.append([words, *speeds, memory])
    against = ["times as fast as the usual code", "as the strongest eager code", "share of peak memory"]
    return table([f"{results.device}, {results.environment['threads']} threads", *against], rows)


def extent(numbers: Iterable[float]) -> str:
    """The smallest and the largest."""
    found = sorted(numbers)
    return f"{times(found[0])} to {times(found[-1])}" if found else ""


def on_gpu(results: Results) -> str:
    """The summary of a GPU in one short sentence, against the strongest form of each kind."""
    eager, graph = (results.select("critic_step", variant=variant) for variant in ("eager", "graph"))
    kinds = {
        "an update in a CUDA graph": (graph, "captured", "the usual code in one"),
        "an eager update": (eager, "joint", "the strongest eager code"),
    }
    parts = [
        f"{how} is {extent(found)} times as fast as {rival}"
        for how, (entries, baseline, rival) in kinds.items()
        if (found := [*filter(None, (ratio(entry, baseline) for entry in entries))])
    ]
    count = len({entry["case"]["name"] for entry in (*eager, *graph)})
    critics = f"{count} critic{'s' if count > 1 else ''}"
    return f"{results.device}, {critics}: {'; '.join(parts)}." if parts else ""


def readme(results: Sequence[Results]) -> str:
    """A table for each CPU, one sentence for each GPU, and the figure."""
    if not results:
        return "Nothing has been measured yet."
    parts = [on_gpu(device) if device.on_gpu else front_table(device) for device in results]
    if not any(device.on_gpu for device in results):
        parts.append("No GPU has been measured yet.")
    parts.append("![Critic step: times as fast as the textbook, by critic and variant](docs/figures/speedup.png)")
    return "\n\n".join(parts)


def all_tables(results: Sequence[Results]) -> str:
    parts = [
        "# Benchmarks",
        GENERATED,
        READING,
        BASELINES,
        "A percentage of a copy may exceed 100: a small case stays in the caches, and an in-place operator touches "
        "only one region of memory.",
    ]
    for device in results:
        suites = dict.fromkeys([*SUITES, *(entry["suite"] for entry in device.entries)])
        parts += [
            f"## {device.device}",
            headline(device)[:1].upper() + headline(device)[1:],
            environment(device),
            section("### A step of the critic", UPDATE.format(IN_A_ROW * device.on_gpu), critic_update(device)),
        ]
        for suite in suites:
            if suite not in ("critic_step", "growth"):
                title, timed = SUITES.get(suite, (suite, ""))
                parts.append(section(f"### {title}", *([timed] if timed else []), comparisons(device.select(suite))))
        parts += [
            section("### Where ours is slower, in short", slower_in_short(device)),
            section("### Where ours is slower, or takes more", slower(device)),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def cost(results: Sequence[Results]) -> str:
    parts = ["# How cost grows", GENERATED]
    parts += [section(f"## {device.device}", environment(device), scaling.growth(device)) for device in results]
    if any(device.select("growth") for device in results):
        parts += [
            "![Time and peak memory by batch, width and depth; time to clip](figures/growth.png)",
            "## 1 to 1,024 GPUs",
            scaling.many_gpus(results),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def texts(root: Path, results: Sequence[Results]) -> dict[Path, str]:
    """File -> its expected content."""
    front = root / "README.md"
    before, opening, rest = front.read_text().partition(OPENING)
    _, closing, after = rest.partition(CLOSING)
    if not closing:
        raise ValueError(f"{front} has no section between {OPENING} and {CLOSING}")
    return {
        front: f"{before}{opening}\n{readme(results)}\n{closing}{after}",
        root / "docs" / "benchmarks.md": all_tables(results),
        root / "docs" / "scaling.md": cost(results),
    }


def out_of_date(root: Path, expected: dict[Path, str], drawn: Sequence[Path], digest: str) -> list[str]:
    """Lines that show every difference."""
    lines = []
    for file, text in expected.items():
        name, found = str(file.relative_to(root)), file.read_text() if file.exists() else ""
        both = found.splitlines(), text.splitlines()
        difference = [*difflib.unified_diff(*both, name, f"{name}, from the results", lineterm="")]
        lines += [*difference[:DIFF_LINES], *(["..."] if len(difference) > DIFF_LINES else [])]
    for file in drawn:
        if not figures.drawn_from(file, digest):
            wrong = "was drawn from other results" if file.exists() else "is missing"
            lines.append(f"{file.relative_to(root)} {wrong}")
    return lines


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where something is out of date")
    check = parser.parse_args(arguments).check
    files = sorted((root / "benchmarks" / "results").glob("*.json"))
    results = [Results.read(file) for file in files]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    expected, folder = texts(root, results), root / "docs" / "figures"
    if check:
        drawn = [folder / f"{name}.png" for name in figures.NAMES if results]
        wrong = out_of_date(root, expected, drawn, digest)
        if wrong:
            print(*wrong, "report: out of date; run `make report` and commit what it writes", sep="\n")
        return int(bool(wrong))
    for file, text in expected.items():
        file.write_text(text)
    if results:
        figures.draw(results, folder, digest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
