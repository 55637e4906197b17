"""The trainer. Its further dependencies are those of the extra ``train``: ``pip install '.[train]'``."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wgan_fast.train.config import TrainConfig
    from wgan_fast.train.fitting import fit
    from wgan_fast.train.generator import TrainedGenerator
    from wgan_fast.train.trainer import Trainer

__all__ = ["TrainConfig", "TrainedGenerator", "Trainer", "fit"]

_MODULES = {"TrainConfig": "config", "TrainedGenerator": "generator", "Trainer": "trainer", "fit": "fitting"}


def __getattr__(name: str) -> Any:
    """Imports a class or function when it is first used: the settings and the networks need no Lightning."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("wgan_fast"):
            raise
        raise ModuleNotFoundError(
            f"wgan_fast.train needs {error.name}: pip install '.[train]', in the folder of wgan_fast's sources",
            name=error.name,
        ) from error
    globals()[name] = value
    return value
