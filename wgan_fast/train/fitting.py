"""Training in one line of Python."""

import signal
from pathlib import Path
from typing import Any

from wgan_fast._checks import ArgumentValueError
from wgan_fast.train.config import make_config
from wgan_fast.train.data.opening import Preparation, kind_of, open_memory
from wgan_fast.train.generator import TrainedGenerator
from wgan_fast.train.run.signals import Stopped
from wgan_fast.train.trainer import Trainer
from wgan_fast.train.view.progress import print_line


def fit(data: Any, labels: Any = None, **settings: Any) -> TrainedGenerator:
    """Trains a generator of samples like these, and returns it.

    ``fit(frame).sample(100)`` is a DataFrame of 100 rows.

    Args:
        data: an array or a tensor of vectors (N, D) or of images (N, H, W), (N, H, W, channels) or (N, channels, H, W);
            a pandas DataFrame; a dataset with a length and items, each a sample, ``(sample, label)``, or a dict as of
            Hugging Face, which is read once; or a name or a path as ``wgan-fast train --data`` takes.
        labels: of an array, a tensor or a dataset, one for each sample. ``label="kind"`` names a DataFrame's column.
        settings: those of :class:`wgan_fast.train.TrainConfig`, such as ``steps``; ``conditional`` is on with labels.

    :class:`wgan_fast.train.Trainer` leaves a run folder: by default a new one in ``runs/``, else ``out``.

    Raises:
        KeyboardInterrupt: it was interrupted; the message names the checkpoint and how to go on. Other signals end the
            program.
        TypeError, ValueError: the data or a setting is wrong; nothing has been written.
    """
    if isinstance(data, str | Path):
        if labels is not None:
            raise ArgumentValueError("labels", "expected none beside a name or a path")
        trainer = Trainer(make_config(None, settings | {"data": str(data)}))
    else:
        of_labels = {} if labels is None else {"conditional": True}
        config = make_config(None, of_labels | settings | {"data": kind_of(data)})
        how = Preparation(config.size, config.colour, config.alpha, config.label, config.drop)
        trainer = Trainer(config, open_memory(data, labels, how))
    try:
        trainer.run()
    except (KeyboardInterrupt, Stopped) as stopped:
        if trainer.saved_step is None:
            raise
        message = (
            f"stopped; {trainer.folder} has a checkpoint of step {trainer.saved_step}. To go on: "
            f"wgan_fast.train.fit(data, out={str(trainer.folder)!r}, resume=True)"
        )
        if isinstance(stopped, Stopped) and stopped.signal != signal.SIGINT:
            print_line(message)
            raise SystemExit(128 + stopped.signal) from stopped
        raise KeyboardInterrupt(message) from None
    assert trainer.folder is not None
    return TrainedGenerator.load(trainer.folder, trust=True)  # its networks have been imported already
