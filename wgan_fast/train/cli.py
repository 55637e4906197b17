"""The command line ``wgan-fast``."""

from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
import typer

from wgan_fast import benchmark
from wgan_fast.experiments import NAMES as EXPERIMENTS
from wgan_fast.train.config import ALGORITHMS, TrainConfig
from wgan_fast.train.data import DATASETS
from wgan_fast.train.models import MODELS
from wgan_fast.train.trainer import Trainer

# Plain, not boxed: an error stays one line whatever the width of the terminal.
app = typer.Typer(
    name="wgan-fast",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_DEFAULT = TrainConfig()


@app.callback()
def main() -> None:
    """Wasserstein GANs, trained right and fast."""


@app.command()
def train(
    algorithm: Annotated[str, typer.Option(help=f"What to train: {', '.join(ALGORITHMS)}.")] = _DEFAULT.algorithm,
    data: Annotated[str, typer.Option(help=f"Where real samples come from: {', '.join(DATASETS)}.")] = _DEFAULT.data,
    model: Annotated[str, typer.Option(help=f"The networks: {', '.join(MODELS)}.")] = _DEFAULT.model,
    steps: Annotated[int, typer.Option(help="Updates of the generator.")] = _DEFAULT.steps,
    batch_size: Annotated[int, typer.Option(help="Real samples per update.")] = _DEFAULT.batch_size,
    n_critic: Annotated[int, typer.Option(help="Updates of the critic per step.")] = _DEFAULT.n_critic,
    learning_rate: Annotated[
        float, typer.Option(help="Of Adam; falls linearly to 0 over the run.")
    ] = _DEFAULT.learning_rate,
    beta1: Annotated[float, typer.Option(help="Adam's decay of the gradients' mean.")] = _DEFAULT.beta1,
    beta2: Annotated[float, typer.Option(help="Adam's decay of the gradients' squares.")] = _DEFAULT.beta2,
    penalty_weight: Annotated[float, typer.Option(help="Of the gradient penalty.")] = _DEFAULT.penalty_weight,
    latent_dimension: Annotated[int, typer.Option(help="Size of the generator's input.")] = _DEFAULT.latent_dimension,
    width: Annotated[int, typer.Option(help="Units of each hidden layer.")] = _DEFAULT.width,
    depth: Annotated[int, typer.Option(help="Hidden layers of each network.")] = _DEFAULT.depth,
    average_decay: Annotated[
        float, typer.Option(help="Share of itself that the averaged generator keeps at each step.")
    ] = _DEFAULT.average_decay,
    log_every: Annotated[int, typer.Option(help="Steps per row of metrics.jsonl.")] = _DEFAULT.log_every,
    seed: Annotated[
        int, typer.Option(help="The same seed gives the same weights on the same machine.")
    ] = _DEFAULT.seed,
    threads: Annotated[int, typer.Option(help="CPU threads that an operation may use.")] = _DEFAULT.threads,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = _DEFAULT.device,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The run folder, new or empty.",
            show_default="runs/<algorithm>-<data>-seed<seed>, numbered where that exists",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in the folder.")] = False,
) -> None:
    """Train a GAN: samples.png, curve.png, metrics and a checkpoint go into the run folder."""
    try:
        config = TrainConfig(
            algorithm=algorithm,
            data=data,
            model=model,
            steps=steps,
            batch_size=batch_size,
            n_critic=n_critic,
            learning_rate=learning_rate,
            beta1=beta1,
            beta2=beta2,
            penalty_weight=penalty_weight,
            latent_dimension=latent_dimension,
            width=width,
            depth=depth,
            average_decay=average_decay,
            log_every=log_every,
            seed=seed,
            threads=threads,
            device=device,
            out=out,
            overwrite=overwrite,
        )
    except (TypeError, ValueError) as error:
        _stop(_as_option(str(error)), code=2)
    trainer = Trainer(config)
    try:
        metrics = trainer.run()
    except KeyboardInterrupt:
        _stop(f"stopped; {trainer.folder} holds the history and a checkpoint of the moment", code=130)
    except (OSError, FloatingPointError) as error:
        if str(error).startswith("out:"):
            _stop(_as_option(str(error)), code=2)
        _stop(f"{trainer.folder}: {error}", code=1)
    typer.echo(_report(metrics))
    typer.echo(f"{trainer.folder}/: samples.png, curve.png, metrics.json, checkpoint.pt")


@app.command()
def bench(
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cuda" if torch.cuda.is_available() else "cpu",
    seconds: Annotated[float, typer.Option(help="For each comparison, after its warm-up.", min=0.1)] = 3.0,
) -> None:
    """Time the library against the textbook on this machine, in turn, and print the medians."""
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without CUDA
        _stop(f"--device: expected cpu, cuda or cuda:N, got {device!r}: {str(error).splitlines()[0]}", code=2)
    typer.echo(benchmark.title(where))
    for row in benchmark.rows(where, seconds):
        typer.echo(row)


@app.command(epilog=f"Names: {', '.join(EXPERIMENTS)}.")
def reproduce(
    name: Annotated[str, typer.Argument(help="One of the names below, or all.")] = "all",
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
        from wgan_fast.experiments import reproduce as experiments  # it needs more than the other commands

        experiments.prepare(names, out)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("wgan_fast"):
            raise
        _stop(f"reproduce needs {error.name}: pip install 'wgan_fast[theory]'", code=1)
    except OSError as error:
        _stop(_as_option(str(error)), code=2)
    failed = []
    for i, one in enumerate(names, 1):
        typer.echo(f"[{i}/{len(names)}] {one} ... ", nl=False)
        try:
            outcome = experiments.run(one, out, seed, small=small)
        except KeyboardInterrupt:
            typer.echo()
            _stop(f"stopped; {out} holds what was complete", code=130)
        typer.echo(f"{'holds' if outcome.holds else 'DOES NOT HOLD'} ({outcome.seconds:.1f} s)")
        for number in outcome.numbers:
            verdict = "" if number.holds else "  DOES NOT HOLD"
            typer.echo(f"    {number.what}: {number.measured:.4g} (expected {number.wanted}){verdict}")
        failed += [f"{one}: {number.what}" for number in outcome.numbers if not number.holds]
    typer.echo(f"{out / 'index.html'} shows what is in the folder")
    if failed:
        _stop("not reproduced: " + "; ".join(failed), code=1)


def _as_option(message: str) -> str:
    """``batch_size: expected ...`` as the user of the command line knows it, ``--batch-size: expected ...``."""
    name, colon, rest = message.partition(":")
    return f"--{name.replace('_', '-')}{colon}{rest}"


def _stop(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


def _report(metrics: dict[str, Any]) -> str:
    distance = (
        f"earth mover's distance to held-out samples {metrics['earth_movers_distance']:.4f} "
        f"(between two real sets: {metrics['earth_movers_distance_real']:.4f})"
    )
    if metrics["modes_total"] is not None:
        distance = (
            f"{metrics['modes_covered']} of {metrics['modes_total']} modes covered, "
            f"{metrics['share_within_3_sigma']:.1%} of samples within 3 sigma, {distance}"
        )
    return f"{metrics['steps']} steps in {metrics['seconds']:.1f} s: {distance}"
