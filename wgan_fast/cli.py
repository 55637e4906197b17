"""The command line ``wgan-fast``. A command imports what it alone needs when it runs."""

import inspect
import json
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_origin

import torch
import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

from wgan_fast._checks import ArgumentError, ArgumentFileNotFoundError, ArgumentValueError
from wgan_fast.experiments import NAMES as EXPERIMENTS
from wgan_fast.train.config import PLACES, TrainConfig, kinds_of, make_config, read_settings

_T = TypeVar("_T")


class _Group(TyperGroup):
    """Commands with their whole first sentence, wrapped; click cuts it at the width of the terminal."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, command.get_short_help_str(limit=1000)) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


# Plain, not boxed: an error stays one line whatever the width of the terminal.
app = typer.Typer(
    name="wgan-fast",
    cls=_Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def main(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Wasserstein GANs, trained right and fast."""
    # Of a warning its reader needs the words, not the line of the library.
    warnings.formatwarning = lambda message, *place, **more: f"warning: {message}\n"


_RESUME = "the last checkpoint"  # what a bare --resume is


class _TrainCommand(TyperCommand):
    """``--resume`` alone, or ``--resume auto``: Typer knows no option whose value may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        bare = [i for i, word in enumerate(args) if word == "--resume" and args[i + 1 : i + 2] != ["auto"]]
        for place in reversed(bare):
            args[place] = f"--resume={_RESUME}"
        return super().parse_args(ctx, args)


def train(config: Path | None = None, **options: Any) -> None:
    """Train a GAN: samples, curves, metrics and checkpoints go into the run folder.

    A setting that is left out comes from --config, else from the algorithm's preset.
    """
    with _needing_packages("train"):
        from wgan_fast.train.launch import LaunchError
        from wgan_fast.train.networks.custom import line_of
        from wgan_fast.train.run import checkpoint
        from wgan_fast.train.run.signals import Stopped
        from wgan_fast.train.trainer import Trainer
        from wgan_fast.train.view.progress import print_line

    given = {name: value for name, value in options.items() if value is not None}
    given |= {"resume": True} if given.get("resume") == _RESUME else {}
    advice = "a smaller --batch-size, --width or --size may help"
    try:
        with _telling_of_memory(advice):
            settings = _asking_for_trust(lambda trust: make_config(config, given | trust))
            trainer = Trainer(settings)
    except (TypeError, ValueError, OSError, LaunchError) as error:
        _stop(_message(train, error), code=2)
    # The settings are right. What a step says of its optimizer is of a network that the user wrote.
    known_as = {"optimizer": "--generator or --critic"}

    def again() -> str:
        return f"wgan-fast train --resume --out {trainer.folder}"

    try:
        with _telling_of_memory(advice), _telling_of_workers():
            metrics = trainer.run()
    except (KeyboardInterrupt, Stopped) as stopped:
        number = stopped.signal if isinstance(stopped, Stopped) else signal.SIGINT
        if trainer.saved_step is None:  # the second Ctrl-C does not wait for a checkpoint
            way = ", before its first checkpoint"
        else:
            way = (
                f"; to go on{f' from step {saved}' if (saved := trainer.saved_step) != trainer.step else ''}: {again()}"
            )
        _stop(f"stopped at step {trainer.step}{way}", code=128 + number)
    except (OSError, FloatingPointError, ValueError, SystemExit) as error:
        if isinstance(error, SystemExit):  # it would end the command without a word
            told = f"a network called sys.exit({error.code!r}) at step {trainer.step}{line_of(error)}"
        else:
            told = _message(train, error, known_as)
        if trainer.folder is None:  # nothing has been written
            _stop(told, code=2)
        if trainer.saved_step is not None:
            last = f"; to go on from step {trainer.saved_step}: {again()}"
        else:
            last = f"; the earlier run in {trainer.folder} is unchanged" if trainer.config.overwrite else ""
        _stop(f"{trainer.folder}: {told}{last}", code=1)
    if trainer.rank == 0:
        print_line(_report(metrics))
        print_line(f"{trainer.folder}/: samples.png, curve.png, metrics.json, {checkpoint.NAME}")


def _completing(names: Iterable[str]) -> Callable[[str], list[str]]:
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def _option(setting: Field[Any]) -> inspect.Parameter:
    """The option of a setting. None is what was not given: a file or a preset then decides."""
    kind = next(kind for kind in kinds_of(setting) if kind is not NoneType)
    # TrainConfig itself tells of a wrong name; Path("") would be the current folder.
    kind = str if kind is Path or get_origin(kind) is Literal or setting.name in ("resume", "size") else kind
    name = setting.name.replace("_", "-")
    declared = f"--{name}/--no-{name}" if kind is bool and setting.name not in PLACES else f"--{name}"
    default = "" if setting.default in (None, False) else f" [default: {setting.default}]"
    choices = setting.metadata["choices"]
    completion = _completing(choices) if choices else None
    option = typer.Option(
        declared, help=setting.metadata["help"] + default, show_default=False, autocompletion=completion
    )
    return inspect.Parameter(
        setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


_CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[Path | None, typer.Option(help="A YAML file of settings, such as a run's config.yaml.")],
)
# The options are the settings: each stands in one place, TrainConfig.
_parameters = [*map(_option, fields(TrainConfig)), _CONFIG]
train.__signature__ = inspect.Signature(_parameters)  # type: ignore[attr-defined]
train.__annotations__ = {parameter.name: parameter.annotation for parameter in _parameters}
app.command(cls=_TrainCommand)(train)


_Trust = Annotated[bool, typer.Option("--trust", help="Import networks that the run names: runs their code.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file.")]


@app.command()
def sample(
    run: Annotated[Path, typer.Argument(help="A run folder, or a checkpoint.")],
    out: Annotated[
        Path,
        typer.Option(
            help="The file: .png or .jpg (a grid of images), .npy, .npz; .csv, .tsv or .parquet for tables. A name "
            "without a suffix is a folder of single images."
        ),
    ] = Path("samples.npy"),
    count: Annotated[int, typer.Option(help="How many; with --interpolate, rows.", min=1, max=2**40)] = 64,
    seed: Annotated[int, typer.Option(help="The same seed gives the same samples.", min=0, max=2**63 - 1)] = 0,
    label: Annotated[
        str | None,
        typer.Option(
            help="Only this label, as the data name it.", show_default="each in turn; of a table as often as in it"
        ),
    ] = None,
    interpolate: Annotated[
        int | None,
        typer.Option(help="Samples from one latent vector to another, as many in each row.", min=2, max=9999),
    ] = None,
    image_type: Annotated[str, typer.Option(help="Of single images: png or jpg.")] = "png",
    overwrite: _Overwrite = False,
    trust: _Trust = False,
) -> None:
    """Draw samples from a trained generator."""
    with _needing_packages("sample"):
        from wgan_fast.train import TrainedGenerator
        from wgan_fast.train.data.sample_files import save_images, save_samples

    folder = out.is_dir() or not out.suffix
    if not out.is_dir():
        _check_new(out, overwrite)
    elif any(out.iterdir()):  # what would remain of it could be taken for samples of this run
        _stop(f"--out: the folder {out} is not empty; name another one, or a file", code=2)
    try:
        generator = _asking_for_trust(lambda more: TrainedGenerator.load(run, **{"trust": trust} | more))
        with _telling_of_memory("a smaller --count may help"):
            if interpolate is None:
                samples, labels = generator.draw(count, seed=seed, label=label)
            else:
                samples, labels = generator.draw_between(count, interpolate, seed=seed, label=label)
        if folder:
            _ = [*save_images(out, samples, generator.decoder, labels, f".{image_type}")]
        else:
            held = out.suffix.lower() in (".npz", ".csv", ".tsv", ".parquet")
            save_samples(out, samples, generator.decoder, labels if held else None, columns=interpolate)
    except ValueError as error:
        names = {"path": "--out", "rows": "--count", "steps": "--interpolate", "suffix": "--image-type"}
        _stop(_message(sample, error, names, run), code=2)
    except OSError as error:
        _stop_writing(out, error)
    typer.echo(f"{out}: {len(samples)} samples of step {generator.step}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    count: Annotated[
        int | None, typer.Option(help="Generated and held-out samples, at most 2,500 unless given.", min=2, max=2**40)
    ] = None,
    features: Annotated[str | None, typer.Option(help="A network for FID and KID, my.module:make_features.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Where the data of the run are now.", show_default="where they were")
    ] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda or cuda:N.")] = "auto",
    trust: _Trust = False,
) -> None:
    """Judge a trained generator against held-out samples of its data; prints JSON."""
    with _needing_packages("evaluate"):
        from wgan_fast.train.run.contents import check_trust
        from wgan_fast.train.view.evaluation import evaluate_run

    try:
        # Not those of the machine that trained.
        here = {"device": device, "precision": "32", "backend": "auto", "threads": None}
        found = read_settings(run / "config.yaml", "run")
        settings = found | here | {"trust": trust} | ({"features": features} if features else {})
        settings |= {"data": data} if data else {}
        with _telling_of_memory("a smaller --count may help"):
            untyped = {"features": None if features else found.get("features")}

            def evaluated(more: dict[str, bool]) -> dict[str, Any]:
                check_trust(untyped, run, more.get("trust", trust))
                return evaluate_run(run, TrainConfig(**settings | more), count)

            metrics = _asking_for_trust(evaluated)
    except (TypeError, ValueError, OSError) as error:
        of_run = {} if data else {"data": f"run: the data of {run}"}
        gone = isinstance(error, ArgumentFileNotFoundError) and not data
        cure = "; start the command in the folder where the run was trained, or name their place with --data"
        _stop(_message(evaluate, error, of_run, run) + (cure if gone else ""), code=2)
    typer.echo(json.dumps(metrics, indent=2))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run folder, or a checkpoint.")],
    out: Annotated[Path, typer.Option(help="The file.")] = Path("generator.pt2"),
    overwrite: _Overwrite = False,
    trust: _Trust = False,
) -> None:
    """Write the generator as a file that torch.export.load reads where this library is not installed."""
    with _needing_packages("export"):
        from wgan_fast.train import TrainedGenerator

    _check_new(out, overwrite)
    try:
        generator = _asking_for_trust(lambda more: TrainedGenerator.load(run, **{"trust": trust} | more))
        generator.export(out)
    except ValueError as error:
        _stop(_message(export, error, {"path": "--out"}, run), code=2)
    except OSError as error:
        _stop_writing(out, error)
    labels = ", labels (B,) of int64" if generator.classes else ""
    typer.echo(f"{out}: takes latent vectors (B, {generator.latent_dimension}) of float32{labels}")


@app.command(epilog=f"Names: {', '.join(EXPERIMENTS)}.")
def reproduce(
    name: Annotated[
        str, typer.Argument(help="One of the names below, or all.", autocompletion=_completing(("all", *EXPERIMENTS)))
    ] = "all",
    out: Annotated[Path, typer.Option(help="The folder of figures, numbers and index.html.")] = Path("runs/reproduce"),
    seed: Annotated[int, typer.Option(help="Of everything random.", min=0)] = 0,
    small: Annotated[bool, typer.Option("--small", help="Little training; numbers may miss what is expected.")] = False,
) -> None:
    """Run the claims of the theory: a figure and measured numbers for each, and a page that shows them.

    The exit status is 1 where a number is not what the theory says.
    """
    if name != "all" and name not in EXPERIMENTS:
        _stop(f"name: expected all or one of {', '.join(EXPERIMENTS)}, got {name!r}", code=2)
    names = EXPERIMENTS if name == "all" else (name,)
    try:
        with _needing_packages("reproduce"):
            from wgan_fast.experiments import reproduce as experiments

            experiments.prepare(names, out)
    except OSError as error:
        _stop(_message(reproduce, error), code=2)
    failed = []
    for i, one in enumerate(names, 1):
        typer.echo(f"[{i}/{len(names)}] {one} ... ", nl=False)
        try:
            outcome = experiments.run(one, out, seed, small=small)
        except KeyboardInterrupt:
            typer.echo()
            _stop(f"stopped; {out} holds what was complete", code=130)
        except OSError as error:
            typer.echo()
            _stop(f"{error.filename or out} cannot be read or written: {error.strerror or error}", code=1)
        typer.echo(f"{'holds' if outcome.holds else 'DOES NOT HOLD'} ({outcome.seconds:.1f} s)")
        for number in outcome.numbers:
            verdict = "" if number.holds else "  DOES NOT HOLD"
            typer.echo(f"    {number.what}: {number.measured:.4g} (expected {number.wanted}){verdict}")
        failed += [f"{one}: {number.what}" for number in outcome.numbers if not number.holds]
    typer.echo(f"{out / 'index.html'} shows what is in the folder")
    if failed:
        _stop("not reproduced: " + "; ".join(failed), code=1)


def _message(
    command: Callable[..., None], error: Exception, known_as: Mapping[str, str] | None = None, run: Path | None = None
) -> str:
    """The error with its argument as the user of a command knows it: an option, ``--batch-size: expected ...``, an
    argument, ``run: there is no ...``, or what the command reads from a run, ``run: the data of runs/x: there is ...``.

    Args:
        command: the function.
        error: also one that names no argument.
        known_as: what to write for arguments that are no parameters of the command.
        run: where the command takes from what it has no option for.
    """
    if isinstance(error, OSError) and not isinstance(error, ArgumentError) and error.filename:
        return f"{error.filename} cannot be read or written: {error.strerror}"
    if not isinstance(error, ArgumentError):
        return str(error)
    name = error.argument
    parameter = inspect.signature(command).parameters.get(name)
    if known_as is not None and name in known_as:
        name = known_as[name]
    elif parameter is None:
        cure = "; start the command in the folder where the run was trained"
        cure = cure if run is not None and isinstance(error, FileNotFoundError) else ""
        name = f"run: the {name.replace('_', ' ')} of {run}" if run is not None else name
        return f"{name}: {error.message}{cure}"
    elif any(isinstance(word, OptionInfo) for word in parameter.annotation.__metadata__):
        name = f"--{name.replace('_', '-')}"
    return f"{name}: {error.message}"


def _asking_for_trust(read: Callable[[dict[str, bool]], _T]) -> _T:
    """What ``read({})`` returns. If that needs ``trust`` and somebody sits at the terminal, they are asked."""
    try:
        return read({})
    except ArgumentValueError as error:
        if error.argument != "trust" or not _is_interactive():
            raise
        if not typer.confirm(f"{error.message.partition(';')[0]}. Run it?", err=True):
            raise
    return read({"trust": True})


def _is_interactive() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


@contextmanager
def _needing_packages(command: str) -> Iterator[None]:
    """Ends the command with a line where a package is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("wgan_fast"):
            raise
        package = error.name.partition(".")[0]
        _stop(f"{command} needs {package}: pip install '.[train]', in the folder of wgan_fast's sources", code=1)


@contextmanager
def _telling_of_memory(advice: str) -> Iterator[None]:
    """Ends the command with a line where the memory, of the machine or of the GPU, does not suffice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        # Of CPUs PyTorch has no class for it, nor of CUDA where it is not its own allocator that asks.
        if not of_memory and not re.search("can't allocate memory|CUDA error: out of memory", str(error)):
            raise
        _stop(f"the memory does not suffice; {advice}", code=1)


@contextmanager
def _telling_of_workers() -> Iterator[None]:
    """Names the option of a process that prefetched data and died. PyTorch raises that wherever the run is."""
    try:
        yield
    except RuntimeError as error:
        if not re.search("^DataLoader worker .*(killed|exited)|^Pin memory thread exited", str(error)):
            raise
        raise ArgumentValueError(
            "workers", "a process that prefetched data was killed, for want of memory perhaps; fewer of them may help"
        ) from error


def _check_new(out: Path, overwrite: bool) -> None:
    """Ends the command, before it does anything, where a file would be replaced that nobody said to replace."""
    if out.exists() and not overwrite:
        _stop(f"--out: {out} exists already; name another file, or replace it with --overwrite", code=2)


def _stop_writing(out: Path, error: OSError) -> NoReturn:
    _stop(f"--out: {out} cannot be written: {error.strerror or error}", code=2)


def _stop(message: str, code: int) -> NoReturn:
    # A name may hold line ends, and sequences that a terminal obeys.
    shown = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in message)
    typer.echo(f"error: {shown}", err=True)
    raise typer.Exit(code)


def _report(metrics: dict[str, Any]) -> str:
    done = f"{metrics['steps']} steps in {metrics['seconds']:.1f} s"
    if "modes_total" not in metrics:  # the evaluation failed, and said why
        return done
    name = "earth_movers_distance" if "earth_movers_distance" in metrics else "sliced_wasserstein"
    words = {"earth_movers_distance": "earth mover's", "sliced_wasserstein": "sliced Wasserstein"}[name]
    text = f"{words} distance to held-out samples {metrics[name]:.4f}"
    if metrics[f"{name}_real"] is not None:
        text += f" (between two real sets: {metrics[f'{name}_real']:.4f})"
    if metrics["modes_total"] is not None:
        text = (
            f"{metrics['modes_covered']} of {metrics['modes_total']} modes covered, "
            f"{metrics['share_within_3_sigma']:.1%} of samples within 3 sigma, {text}"
        )
    return f"{done}: {text}"
