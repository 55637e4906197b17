"""The trainer. Its further dependencies are installed by ``pip install 'wgan_fast[train]'``."""

try:
    from wgan_fast.train.config import TrainConfig
    from wgan_fast.train.generator import TrainedGenerator
    from wgan_fast.train.trainer import Trainer
except ModuleNotFoundError as error:
    if error.name is None or error.name.startswith("wgan_fast"):
        raise
    raise ModuleNotFoundError(
        f"wgan_fast.train needs {error.name}: pip install 'wgan_fast[train]'", name=error.name
    ) from error

__all__ = ["TrainConfig", "TrainedGenerator", "Trainer"]
