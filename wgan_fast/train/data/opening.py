"""Opens data of every kind: scikit-learn's digits, files and folders, and what a program holds in memory."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wgan_fast._checks import ArgumentTypeError, ArgumentValueError
from wgan_fast.train.data.frames import table_of_frame
from wgan_fast.train.data.images import ImageArray, ImageFolder, Target, fit, image_size, is_grey, layout_of, naming
from wgan_fast.train.data.samples import Samples, Table, Vectors
from wgan_fast.train.data.table_files import TABLES, read_table
from wgan_fast.train.run.memory import physical_memory

#: What :func:`open_path` reads beside ``digits``.
PATHS = "a folder of images, a file .npy or .npz, or a table .csv, .tsv or .parquet"
#: What settings call data in memory.
IN_MEMORY = ("array", "tensor", "DataFrame", "dataset")
_SHAPES = (
    "expected numbers of shape (N, D) for vectors, or (N, H, W), (N, H, W, channels) or (N, channels, H, W) with 1 to "
    "4 channels for images"
)


@dataclass(frozen=True)
class Preparation:
    """How data are to be read: the settings of :class:`.config.TrainConfig` of the same names."""

    size: int | str | None = None
    colour: bool | None = None
    alpha: bool = False
    label: str | None = None
    drop: str | None = None

    def refuse_images(self, source: object) -> None:
        """Raises ValueError if a setting is given that applies to images only, for other data."""
        for name, value in {"size": self.size, "colour": self.colour, "alpha": self.alpha or None}.items():
            if value is not None:
                raise ArgumentValueError(name, f"applies to images only, and {source} holds vectors; got {value}")

    def refuse_columns(self, source: object) -> None:
        """Raises ValueError if a setting is given that names columns, for data that are no table."""
        for setting, value in {"label": self.label, "drop": self.drop}.items():
            if value is not None:
                raise ArgumentValueError(setting, f"names a column of a table, and {source} is none; got {value!r}")


def open_path(source: str, how: Preparation) -> Samples:
    """Opens scikit-learn's ``digits``, or the data at a path; see :func:`wgan_fast.train.data.sources.make_data`."""
    path, size = Path(source), image_size(how.size)
    if path.exists() and not path.is_dir() and not path.is_file():
        raise ArgumentValueError("data", f"expected {PATHS}; {source} is another thing, a pipe or a device perhaps")
    suffix = path.suffix.lower()
    if suffix in TABLES and not path.is_dir():
        how.refuse_images(source)
        return Table(path, read_table(path), how.label, how.drop)
    how.refuse_columns(source)
    if source == "digits":
        return _digits(Target(*(size or (16, 16)), bool(how.colour), how.alpha))
    if path.is_dir():
        return ImageFolder(path, size, how.colour, how.alpha)
    if suffix == ".npy":
        with naming(path, "an array"):
            array = np.lib.format.open_memmap(path, mode="r")
        return open_array(path, array, None, how)
    if suffix == ".npz":
        return open_array(path, *_read_npz(path), how)
    raise ArgumentValueError("data", f"expected {PATHS}, got {source}")


def kind_of(data: object) -> str:
    """What settings call data in memory, one of :data:`IN_MEMORY`.

    Raises:
        TypeError: they are something else.
    """
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        return "DataFrame"
    if isinstance(data, Tensor):
        return "tensor"
    if isinstance(data, np.ndarray):
        return "array"
    one_column = hasattr(data, "to_frame")
    cures = {
        "; make it an array with numpy.array(data)": isinstance(data, list | tuple),
        "; name one of its parts, such as data['train'], or make it a DataFrame": isinstance(data, Mapping),
        "; pass its dataset, data.dataset": hasattr(data, "dataset"),
        "; read its samples into an array or a list": hasattr(data, "__iter__") and not hasattr(data, "__len__"),
        "; make it a DataFrame with data.to_frame()": one_column,
        "; make it dense with data.toarray()": hasattr(data, "toarray"),
        "; make it a DataFrame of pandas with data.to_pandas()": hasattr(data, "to_pandas")
        and hasattr(data, "columns"),
    }
    cure = next((cure for cure, applies in cures.items() if applies), "")
    if cure or isinstance(data, bytes) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise ArgumentTypeError(
            "data",
            "expected a name, a path, an array, a tensor, a DataFrame, or a dataset with a length and items, "
            f"got {type(data).__name__}{cure}",
        )
    return "dataset"


def open_memory(data: Any, labels: Any, how: Preparation) -> Samples:
    """Opens an array, a tensor, a DataFrame or a dataset.

    Args:
        data: what :func:`kind_of` names.
        labels: one for each sample, or None; not of a DataFrame.
        how: the settings.

    Raises:
        TypeError, ValueError: the data or labels are not usable.
    """
    kind = kind_of(data)
    if kind == "DataFrame":
        if labels is not None:
            raise ArgumentValueError("labels", "expected none beside a DataFrame; name its column with label")
        how.refuse_images("a DataFrame")
        return Table("the DataFrame", table_of_frame(data), how.label, how.drop)
    how.refuse_columns(f"the {kind}")
    if kind == "dataset":
        data, of_items = _read_dataset(data, how)
        labels = of_items if labels is None else labels
    given = None if labels is None else _array_of_labels(labels)
    if isinstance(data, Tensor):
        return _open_tensor(f"the {kind}", data, given, how)
    return open_array(f"the {kind}", data, given, how)


def _array_of_labels(labels: Any) -> NDArray[Any]:
    """Labels in an array, in one of objects where NumPy would make a list's values of several types one type."""
    if isinstance(labels, np.ma.MaskedArray):
        raise ArgumentTypeError("labels", "expected a label for each sample, got a masked array; fill what is masked")
    try:
        if isinstance(labels, Tensor):
            return labels.detach().cpu().numpy()
        return np.array(labels, dtype=object) if isinstance(labels, list | tuple) else np.asarray(labels)
    except Exception as error:  # values may be of anybody's type
        raise ArgumentTypeError("labels", f"expected an array of integers or texts: {error}") from error


def open_array(name: object, array: NDArray[Any], labels: NDArray[Any] | None, how: Preparation) -> Samples:
    """Vectors (N, D), or images (N, H, W), (N, H, W, channels) or (N, channels, H, W) of any type of numbers."""
    given = f"{array.dtype} of shape {array.shape}"
    samples: Samples
    if isinstance(array, np.ma.MaskedArray):
        raise ArgumentTypeError("data", f"{name}: a masked array; fill what is masked, or make it a DataFrame")
    if array.dtype.kind not in "biuf" or array.size == 0:
        raise ArgumentValueError("data", f"{name}: {_SHAPES}; got {given}")
    if array.ndim == 2:
        how.refuse_images(name)
        samples = Vectors(name, array, [f"x{column}" for column in range(array.shape[1])])
    elif layout_of(array.shape) is not None:
        samples = ImageArray(name, array, image_size(how.size), how.colour, how.alpha)
    else:
        raise ArgumentValueError("data", f"{name}: {_SHAPES}; got {given}")
    if labels is not None:
        samples.set_labels(name, labels)
    return samples


def _open_tensor(name: str, tensor: Tensor, labels: NDArray[Any] | None, how: Preparation) -> Samples:
    real = not (tensor.is_complex() or tensor.is_quantized or "float8" in str(tensor.dtype))
    if tensor.layout != torch.strided or tensor.is_meta or not real:
        raise ArgumentTypeError(
            "data", f"expected a dense tensor of numbers, got {tensor.dtype} of {tensor.layout} on {tensor.device}"
        )
    kept = tensor.detach().cpu().resolve_neg()
    array = (kept.float() if tensor.dtype == torch.bfloat16 else kept).numpy()
    samples = open_array(name, array, labels, how)
    assert samples.decoder.array is not None
    given = replace(samples.decoder.array, tensor=str(tensor.dtype).removeprefix("torch."))
    samples.decoder = replace(samples.decoder, array=given)
    return samples


def _read_dataset(data: Any, how: Preparation) -> tuple[NDArray[Any] | Tensor, NDArray[Any] | None]:
    """Every sample of a dataset, and its labels: items are samples, (sample, label), or of Hugging Face dicts."""
    samples: list[Any] = []
    labels: list[Any] = []
    target: Target | None = None
    grey = how.colour is None
    for index in range(len(data)):
        sample, label = _item(data[index], index)
        if isinstance(sample, Image.Image):
            if sample.mode.startswith(("I", "F")):  # more than 8 bits
                sample = np.asarray(sample)
            else:
                size = image_size(how.size) or (sample.height, sample.width)
                grey = grey and is_grey(sample)
                target = target or Target(*size, how.colour is not False, how.alpha)
                sample = fit(sample, target)
        elif not isinstance(sample, Tensor | np.ndarray):
            raise ArgumentTypeError(
                "data",
                f"item {index} of the dataset: expected a tensor, an array or an image, got {type(sample).__name__}",
            )
        if samples and (type(sample), sample.shape) != (type(samples[0]), samples[0].shape):
            found, first = (f"{type(item).__name__} of shape {tuple(item.shape)}" for item in (sample, samples[0]))
            raise ArgumentValueError("data", f"item {index} of the dataset is a {found}, the first a {first}")
        samples.append(sample)
        labels.append(label)
    if not samples:
        raise ArgumentValueError("data", "the dataset is empty")
    of_one_kind = len({*map(type, labels)}) == 1 and isinstance(labels[0], int | str | np.integer | np.bool_)
    known = np.array(labels) if of_one_kind else None
    if isinstance(samples[0], Tensor):
        return torch.stack(samples), known
    stacked = np.stack(samples)
    if target is not None and target.colour and grey:  # three times the same
        stacked = stacked[..., [0, 3] if how.alpha else [0]]
    return (stacked[..., 0] if target is not None and stacked.shape[3] == 1 else stacked), known


def _item(item: Any, index: int) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        names = [name for name in ("image", "img", "pixel_values", "samples", "x") if name in item]
        if not names:
            raise ArgumentValueError("data", f"item {index} of the dataset has no image, only {', '.join(item)}")
        label = next((item[name] for name in ("label", "labels", "y") if name in item), None)
        item = (item[names[0]], label)
    sample, label = (*item, None)[:2] if isinstance(item, tuple | list) else (item, None)
    if isinstance(label, Tensor | np.ndarray) and label.ndim == 0:
        label = label.item()
    return sample, label


def _digits(target: Target) -> Samples:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # importing it takes a second

    data = load_digits()
    pixels = np.round(data.images * (255 / 16)).astype(np.uint8)
    pixels = np.stack([fit(Image.fromarray(image), target) for image in pixels])
    pixels = pixels[..., 0] if pixels.shape[3] == 1 else pixels
    samples = ImageArray("digits", pixels, colour=target.colour, alpha=target.alpha)
    samples.set_labels("digits", data.target)
    return samples


def _read_npz(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as start:
            cure = "; it is a .npy file, rename it" if start.read(6) == b"\x93NUMPY" else ""
        raise ArgumentValueError("data", f"{path} is not an archive of arrays, as numpy.savez writes it{cure}")
    with naming(path, "arrays"), np.load(path, allow_pickle=False) as file:
        unpacked = sum(member.file_size for member in file.zip.infolist())
        if unpacked > physical_memory() / 2:
            raise ValueError(f"unpacked it takes {unpacked / 2**30:.1f} GiB, too much here; store it as .npy")
        arrays = {name: file[name] for name in file.files}
    labels = arrays.pop("labels", None)
    if "samples" not in arrays and len(arrays) != 1:
        raise ArgumentValueError("data", f"{path}: expected an array named samples, got {', '.join(arrays) or 'none'}")
    return arrays.get("samples", next(iter(arrays.values()))), labels
