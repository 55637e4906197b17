"""Feeds damaged files to the commands, in a process of its own: `python fuzz.py FOLDER COUNT SEED`.

Prints what went wrong, a line for each: a traceback, an error of several lines, code that ran, a hang, too much memory.
"""

import io
import os
import random
import resource
import signal
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training import cli, options, run

#: Of the processor, and by the clock.
SECONDS, WAITED = 20, 300
GIB = 2**30
#: Address space beside what the libraries take, and resident memory beside what a valid file takes.
ADDRESSES, RESIDENT = 4 * GIB, GIB
TRAIN = ["--n-critic", "1", "--device", "cpu", *options(steps=1, batch_size=4, width=4, latent_dimension=4)]

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
#: Texts that a config.yaml may be.
CONFIGS = [
    BOMB,
    BOMB + "algorithm: *i\n",
    MERGES,
    "[" * 9_999,
    "{a: " * 2_000,
    "[" * 50_000,
    "algorithm: " + "9" * 10_000,
    "width: 99999999\n",
    "depth: 99999999\n",
    "latent_dimension: 99999999999\n",
    "width: 1e400\n",
    "generator: payload:make\n",
    "features: payload:make\ndata: payload\n",
    "data: !!python/object/apply:os.system ['touch ran']\n",
    "data: !!python/name:payload.make\n",
    "data: 2021-13-45\n",
    "? [1, 2]\n: 3\n",
    "1: 2\n",
    "null\n",
    "learning_rate: .nan\n",
    "seed: -1\n",
    "threads: 1000000\n",
    "precision: [32]\n",
    "\x00",
    "\ud800".encode("utf-16", "surrogatepass").decode("latin-1"),
]


class Ran:
    """What a pickle would run."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def state_of(folder: Path) -> dict[str, object]:
    return torch.load(folder / "run" / "checkpoint.pt", weights_only=True)


#: Values in places of a checkpoint where they do not belong.
STRANGE = [
    None,
    -1,
    2**70,
    1e300,
    float("nan"),
    "payload:make",
    b"x",
    [],
    {},
    [[[]]],
    {"a": 1},
    torch.zeros(3),
    (),
    True,
]
WHERE = [
    ("generator",), ("critic",), ("trained_generator",), ("optimizers",), ("scalers",), ("step",), ("batches",),
    ("random",), ("history",), ("networks",), ("codec",), ("config",), ("identity",), ("networks", "name"),
    ("networks", "shape"), ("networks", "latent_dimension"), ("networks", "width"), ("networks", "depth"),
    ("networks", "classes"), ("networks", "blocks"), ("networks", "norm"), ("codec", "kind"), ("codec", "columns"),
    ("codec", "mean"), ("codec", "deviation"), ("codec", "classes"), ("codec", "counts"), ("codec", "table"),
    ("codec", "array"),
    ("identity", "count"), ("identity", "hash"), ("random", 0), ("random", 0, "python"), ("random", 0, "numpy"),
    ("random", 0, "torch"), ("history", "critic"), ("history", "generator"), ("history", "gradient_norm"),
    ("optimizers", 0), ("optimizers", 0, "state"), ("optimizers", 0, "param_groups"), ("config", "steps"),
    ("config", "seed"), ("generator", "layers.0.weight"),
]  # fmt: skip


def strange_checkpoint(draw: random.Random, folder: Path) -> bytes:
    """Whole, but with a value of another type or size."""
    state = state_of(folder)
    *way, last = draw.choice(WHERE)
    holder = state
    for key in way:
        holder = holder[key]
    huge = {"shape": [10**6, 10**6], "width": 10**6, "depth": 10**9, "latent_dimension": 10**12, "classes": 10**12}
    values = STRANGE + ([huge[last]] * 9 if last in huge else [])
    holder[last] = draw.choice(values)
    written = io.BytesIO()
    torch.save(state, written)
    return written.getvalue()


def bomb(draw: random.Random, folder: Path) -> bytes:
    """A checkpoint, or an archive of arrays, whose members unpack to far more than they are."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        name = draw.choice(["checkpoint/data.pkl", "samples.npy"])
        with archive.open(name, "w", force_zip64=True) as member:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**30, 2)})
            member.write(header.getvalue() if name == "samples.npy" else b"\x80\x02")
            for _ in range(2 * 64):
                member.write(bytes(2**24))
    return written.getvalue()


def code(draw: random.Random, folder: Path) -> bytes:
    """A pickle that would run code, in any of the formats of PyTorch and NumPy."""
    written = io.BytesIO()
    if draw.random() < 0.3:
        np.save(written, np.array([Ran()], dtype=object), allow_pickle=True)
    elif draw.random() < 0.5:
        np.savez(written, samples=np.array([Ran()], dtype=object))
    else:
        state = state_of(folder) | {"generator": Ran()}
        torch.save(state, written, _use_new_zipfile_serialization=draw.random() < 0.5)
    return written.getvalue()


def named_code(draw: random.Random, folder: Path) -> bytes:
    state = state_of(folder)
    state["networks"][draw.choice(["generator", "critic"])] = "payload:make"
    written = io.BytesIO()
    torch.save(state, written)
    return written.getvalue()


def huge_array(draw: random.Random, folder: Path) -> bytes:
    """A header that declares more than the file holds."""
    shape = draw.choice(
        [(2**40, 2), (2**62, 2**62), (-1, 2), (2**33, 3, 16, 16), (0, 2), (3,), (2, 2, 2, 2, 2), "x", ()]
    )
    kind = draw.choice(["<f8", "|u1", "|O", "<U9", "<M8[s]", ">f4", "<c8", "|V3", "nonsense", [("a", "<f8")]])
    header = f"{{'descr': {kind!r}, 'fortran_order': {draw.choice([True, False])}, 'shape': {shape!r}, }}"
    text = header.encode() + b" " * draw.choice([0, 3, 10**5]) + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + bytes(draw.choice([0, 64]))


def mutated(draw: random.Random, content: bytes) -> bytes:
    """Bytes changed, cut, doubled or moved."""
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 3, 20])):
        place = draw.randrange(len(data) + 1)
        how = draw.randrange(5)
        if how == 0 and data:
            data[place % len(data)] ^= 1 << draw.randrange(8)
        elif how == 1:
            del data[place : place + draw.choice([1, 8, 1000])]
        elif how == 2:
            data[place:place] = draw.choice(
                [b"\x00", b"\xff" * 4, b"\n", b",", b"'", b'"', b": &a *a", b"9" * 30, data[:64]]
            )
        elif how == 3:
            del data[place:]
        else:
            other = draw.randrange(len(data) + 1)
            data[place : place + 8] = data[other : other + 8]
    return bytes(data)


def originals(folder: Path) -> dict[str, bytes]:
    """Valid files, by name, and a run on one of them."""
    values = np.random.default_rng(0).normal(size=(40, 3))
    np.save(folder / "x.npy", values)
    np.savez(folder / "x.npz", samples=(values * 9).astype(np.int32), labels=np.arange(40) % 3)
    np.savetxt(folder / "x.csv", values, "%.4g", ",", header="a,b,c", comments="")
    for name in ("x.png", "x.jpg", "x.gif", "x.tif", "x.webp", "x.bmp"):
        Image.effect_noise((20, 20), 50).save(folder / name)
    run(folder / "run", data=str(folder / "x.npy"), latent_dimension=4)
    files = {path.name: path.read_bytes() for path in folder.glob("x.*")}
    return files | {name: (folder / "run" / name).read_bytes() for name in ("checkpoint.pt", "config.yaml")}


def cases(draw: random.Random, folder: Path) -> Callable[[], tuple[str, bytes]]:
    """Draws a file name and a content."""
    files = originals(folder)

    def case() -> tuple[str, bytes]:
        kind = draw.randrange(12)
        if kind == 0:
            return "config.yaml", draw.choice(CONFIGS).encode("utf-8", "surrogateescape")
        if kind in (1, 2):
            return "checkpoint.pt", strange_checkpoint(draw, folder)
        if kind == 3:
            return draw.choice(["checkpoint.pt", "x.npz"]), bomb(draw, folder) if draw.random() < 0.1 else b"PK\x03\x04"
        if kind == 4:
            return draw.choice(["checkpoint.pt", "x.npy", "x.npz"]), code(draw, folder)
        if kind == 5:
            return draw.choice(["x.npy", "checkpoint.pt"]), huge_array(draw, folder)
        if kind == 6:
            return "checkpoint.pt", named_code(draw, folder)
        name = draw.choice(sorted(files))
        content = files[name] if draw.random() < 0.9 else files[draw.choice(sorted(files))]
        return name, mutated(draw, content)

    return case


def commands(name: str, file: Path, place: Path) -> list[list[object]]:
    """The commands that read the file."""
    if name == "checkpoint.pt":
        (place / "config.yaml").write_bytes((place.parent / "run" / "config.yaml").read_bytes())
        resume = ["train", "--resume", "--steps", 5, "--out", place]
        return [["sample", file, "--out", place / "o.npy", "--count", 2], ["evaluate", place, "--count", 4], resume]
    if name == "config.yaml":
        return [["train", "--config", file, "--out", place / "out", *TRAIN]]
    data = file
    if file.suffix not in (".npy", ".npz", ".csv"):
        data = place / "pictures"
        data.mkdir()
        for other in range(3):
            Image.effect_noise((20, 20), 50).save(data / f"{other}.png")
        file.rename(data / name)
    return [["train", "--data", data, "--out", place / "out", *TRAIN]]


class Hangs(BaseException):
    pass


def hang(*args: object) -> None:
    raise Hangs


def main(folder: Path, count: int, seed: int) -> None:
    draw = random.Random(seed)
    warnings.simplefilter("ignore")
    os.chdir(folder)
    (folder / "payload.py").write_text("import os\nos.mkdir('ran')\ndef make(**_): ...\n")
    case = cases(draw, folder)
    addresses = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (addresses + ADDRESSES, -1))
    signal.signal(signal.SIGALRM, hang)
    signal.signal(signal.SIGPROF, hang)
    resident = None
    for number in range(count):
        name, content = case()
        place = folder / f"case{number}"
        place.mkdir()
        (place / name).write_bytes(content)
        for command in commands(name, place / name, place):
            told = f"{command[0]} {place.name}/{name}"
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.alarm(WAITED)
            try:
                result = cli(*command)
            except Hangs:
                print(f"{told}: hangs", flush=True)
                continue
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.alarm(0)
            error = result.exception
            if isinstance(error, Hangs):
                print(f"{told}: hangs", flush=True)
            elif error is not None and not isinstance(error, SystemExit):
                print(f"{told}: {type(error).__name__}: {str(error)[:200]!r}", flush=True)
            elif result.exit_code and (result.stderr.count("\n") != 1 or not result.stderr.startswith("error: ")):
                print(f"{told}: {result.exit_code}, {result.stderr!r:.300}", flush=True)
            elif len(result.stderr) > 2000:
                print(f"{told}: {len(result.stderr)} characters of error", flush=True)
        if (folder / "ran").exists() or (place / "ran").exists() or "payload" in sys.modules:
            print(f"{place.name}/{name}: code ran", flush=True)
            return
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        resident = resident or peak
        if peak > resident + RESIDENT:
            print(f"{place.name}/{name}: {peak / GIB:.1f} GiB, {resident / GIB:.1f} before", flush=True)
            resident = peak
    print(f"done: {count}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
