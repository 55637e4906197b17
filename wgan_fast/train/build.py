"""The data and the networks of a run, made from its settings."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.fabric import Fabric

from wgan_fast._checks import ArgumentValueError
from wgan_fast.train.config import TrainConfig
from wgan_fast.train.data.samples import Samples
from wgan_fast.train.data.sources import Data, FiniteData, make_data
from wgan_fast.train.generator import build_networks
from wgan_fast.train.launch import place
from wgan_fast.train.networks.base import Models
from wgan_fast.train.networks.named import check_models
from wgan_fast.train.run.memory import physical_memory
from wgan_fast.train.run.randomness import own_random_states


class Seeds(NamedTuple):
    """The independent seeds of a run: of the first weights, of training, of evaluation."""

    weights: int
    training: int
    evaluation: int


def derive_seeds(seed: int) -> Seeds:
    """Three seeds from the one setting."""
    return Seeds(*np.random.SeedSequence(seed).generate_state(3).tolist())


def open_data(config: TrainConfig, samples: Samples | None = None) -> Data:
    """The data that ``config.data`` names, or ``samples`` that a program holds.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the data are not usable, or ``config.conditional`` asks for labels that they lack.
    """
    how = {name: getattr(config, name) for name in ("seed", "size", "colour", "alpha", "label", "drop")}
    data = make_data(config.data, **how) if samples is None else FiniteData(samples, config.seed)
    if config.conditional and not data.classes:
        cures = {
            "table": "; name their column with label",
            "images": "; a folder of images has a folder for each label, a .npz file and a dataset their own",
        }
        cure = cures.get(data.decoder.kind, "")
        raise ArgumentValueError(
            "conditional", f"expected data with labels, integers or texts, and {config.data} has none{cure}"
        )
    if config.augment is not None and data.decoder.kind != "images":
        raise ArgumentValueError("augment", f"applies to images only, got {config.augment}")
    return data


def describe_networks(config: TrainConfig, data: Data) -> dict[str, Any]:
    """The arguments of :func:`.generator.build_networks`; a checkpoint holds them as ``networks``."""
    return {
        "name": config.model or ("dcgan" if data.decoder.kind == "images" else "mlp"),
        "shape": list(data.shape),
        **{name: getattr(config, name) for name in ("latent_dimension", "width", "depth", "norm")},
        **{name: getattr(config, name) for name in ("generator", "critic")},
        "classes": len(data.classes) if config.conditional else 0,
        "blocks": list(data.decoder.table.blocks) if data.decoder.table is not None else [],
    }


def check_memory(config: TrainConfig, description: dict[str, Any]) -> None:
    """Raises MemoryError where the memory cannot hold a batch, or the library's networks, their gradients and Adam's
    averages: the system would kill the process.
    """
    if 8 * config.batch_size * max(config.latent_dimension, math.prod(description["shape"])) > physical_memory():
        raise MemoryError
    if description["generator"] or description["critic"]:
        return
    try:
        with torch.device("meta"):  # has shapes and no memory
            models = build_networks(description)
    except (RuntimeError, TypeError) as error:  # the size of a tensor overflows
        raise MemoryError from error
    needed = 4 * sum(weights.nbytes for network in models for weights in network.parameters())
    if needed > physical_memory():
        raise MemoryError


def make_networks(description: dict[str, Any], seed: int, fabric: Fabric) -> Models:
    """The generator and the critic with their first weights, on the device of the run.

    Raises:
        ValueError: a network does not accept or return what the description says.
    """
    with own_random_states(seed, torch.device("cpu")):
        models = build_networks(description)
    models = Models(*(place(fabric, network) for network in models))
    check_models(models, tuple(description["shape"]), description["latent_dimension"], description["classes"])
    return models
