"""Training history: a row per ``log_every`` steps, kept in memory and appended to a JSON lines file."""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wgan_fast import CriticOutput
from wgan_fast.train.run.atomic import whole_file

NAME = "metrics.jsonl"
SKIPPED = 32  # more skipped updates in succession are an error: after 16 a scale has fallen from 2^16 to 1
Row = dict[str, float]


class History:
    """Rows of means over the updates since the previous row. Values stay on the device until a row is complete.

    Args:
        folder: the run folder. Rows of its ``metrics.jsonl`` up to ``step`` are kept, later ones are removed.
        step: generator steps already done.
        estimate: the quantity that the critic's loss without penalty estimates: ``wasserstein``, ``jensen_shannon`` or
            ``relativistic_divergence``.
        state: the :meth:`state_dict` of the history that resumes.
        written: whether this process writes the file.
        scaled: whether a GradScaler scales the losses. A scale that is too large gives a loss that is not finite; the
            scaler skips that update and halves the scale. Means leave such updates out.

    Attributes:
        rows: all rows, the resumed ones first.
    """

    def __init__(
        self,
        folder: Path,
        step: int = 0,
        estimate: str = "wasserstein",
        state: dict[str, Any] | None = None,
        *,
        written: bool = True,
        scaled: bool = False,
    ) -> None:
        self._path, self._estimate, self._writes = folder / NAME, estimate, written
        self._scaled = scaled
        lines = self._path.read_text(errors="replace").splitlines() if step and self._path.is_file() else []
        self.rows: list[Row] = [row for row in map(_row, lines) if row is not None and row["step"] <= step]
        self._critic: list[Tensor] = list(state["critic"]) if state else []
        self._generator: list[Tensor] = list(state["generator"]) if state else []
        self._gradient_norm: Tensor | None = state.get("gradient_norm") if state else None
        self._written = False  # whether the file holds these rows

    def __enter__(self) -> "History":
        return self

    def __exit__(self, *error: object) -> None:
        if not self._written:  # a write failed, or rows of a killed run were dropped
            with suppress(OSError):
                self.write()

    def add(self, output: CriticOutput, gradient_norm: Tensor | None = None) -> None:
        """Records one critic update; of a penalised one also the mean norm of the gradients."""
        self._critic.append(torch.stack(output))
        if gradient_norm is not None:
            self._gradient_norm = gradient_norm

    def add_generator(self, loss: Tensor) -> None:
        """Records the loss of one generator update."""
        self._generator.append(loss)

    def means(self) -> Row:
        """Means of the values since the last row, and the gradient norm of the last penalised batch. Synchronises with
        the device.

        The Wasserstein estimate is proportional to the critic's slope, which may exceed 1 with a weak penalty. The
        other two are lower bounds of divergences, in nats and at most log 2: Jensen-Shannon's, and for the loss of
        pairs the relativistic one, ``sup_f E log(2 sigma(f(x) - f(x~)))``.

        Raises:
            FloatingPointError: a loss is not finite.

        Source: Goodfellow et al., "Generative Adversarial Nets", 2014, theorem 1; Jolicoeur-Martineau, "On Relativistic
        f-Divergences", 2020, section 3.
        """
        critic_loss, wasserstein, penalty = self._taken(self._critic).mean(dim=0).tolist()
        generator_loss = self._taken(self._generator).mean().item() if self._generator else 0.0
        for name, loss in (("critic", critic_loss), ("generator", generator_loss)):
            if not math.isfinite(loss):
                raise FloatingPointError(f"the {name}'s loss is {loss}; a lower learning rate may help")
        score_loss = critic_loss - penalty
        estimates = {
            "wasserstein": wasserstein,
            "jensen_shannon": math.log(2) - score_loss / 2,
            "relativistic_divergence": math.log(2) - score_loss,
        }
        norm = {} if self._gradient_norm is None else {"gradient_norm": self._gradient_norm.item()}
        if self._scaled and not all(map(math.isfinite, norm.values())):
            norm = {}  # of a skipped update
        return {
            "critic_loss": critic_loss,
            "generator_loss": generator_loss,
            self._estimate: estimates[self._estimate],
            "penalty": penalty,
            **norm,
        }

    def _taken(self, values: list[Tensor]) -> Tensor:
        """The values without those of skipped updates, unless all were skipped."""
        found = torch.stack(values)
        taken = found[_finite(found)] if self._scaled else found
        return taken if len(taken) else found

    def is_searching(self) -> bool:
        """Whether all updates since the last row were skipped, and so few that the scaler may still find its scale."""
        return self._scaled and any(
            0 < len(values) <= SKIPPED and not _finite(torch.stack(values)).any()
            for values in (self._critic, self._generator)
        )

    def check_finite(self) -> None:
        """Raises what :meth:`means` raises, also where nothing came since the last row."""
        if self._critic and not self.is_searching():
            self.means()

    def end_row(self, step: int, **more: float) -> Row:
        """Appends the row of generator step ``step`` and returns it; :meth:`write` puts it into the file."""
        row = {"step": step, **self.means(), **more}
        self._critic.clear()
        self._generator.clear()
        self.rows.append(row)
        return row

    def write(self) -> None:
        """Adds the last row to the file; at first, and after a failure, writes it anew.

        Raises:
            OSError: the file cannot be written.
        """
        if not self._writes:
            return
        complete, self._written = self._written, False
        if complete:
            with self._path.open("a") as file:
                file.write(json.dumps(self.rows[-1]) + "\n")
        else:  # atomically, so a killed run keeps its rows
            with whole_file(self._path) as unfinished:
                unfinished.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        self._written = True

    def state_dict(self) -> dict[str, Any]:
        """The values that later rows depend on."""
        return {
            "critic": list(self._critic),
            "generator": list(self._generator),
            "gradient_norm": self._gradient_norm,
        }


def check_state(state: dict[str, Any]) -> None:
    """Raises an error of any type where a :meth:`History.state_dict` from a file is none."""
    torch.stack([*state["critic"], torch.zeros(3, device="cpu")])
    torch.stack([*state["generator"], torch.zeros((), device="cpu")])
    norm = state.get("gradient_norm")
    if norm is not None:
        norm.item()


def _finite(values: Tensor) -> Tensor:
    """Of each update, whether all of its values are finite."""
    return values.reshape(len(values), -1).isfinite().all(dim=1)


def _row(line: str) -> Row | None:
    """Parses a row. None for other content, such as the incomplete last line of a killed run."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and row.keys() >= {"step", "critic_loss", "generator_loss"} else None
