"""Images, in folders and in arrays, as float32 samples (channels, H, W) in [-1, 1]."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from wgan_fast._checks import ArgumentTypeError, ArgumentValueError
from wgan_fast.train.data.decoder import Decoder
from wgan_fast.train.data.samples import ArraySamples, Samples, pieces
from wgan_fast.train.data.units import ArrayFormat, Layout
from wgan_fast.train.run.contents import holds_only_runs

#: Headers of images that are read at first, at even distances; all of a smaller folder.
MAX_HEADERS = 10_000
_OF_SYSTEMS = ("Thumbs.db", "desktop.ini", "__MACOSX")
_LUMA = np.array([[0.299], [0.587], [0.114]], dtype=np.float32)  # of ITU-R 601-2, as Pillow's


class Target(NamedTuple):
    """What images are made to: cropped at the centre to this shape, resized, and with these channels."""

    height: int
    width: int
    colour: bool
    alpha: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return ((3 if self.colour else 1) + self.alpha, self.height, self.width)

    @property
    def mode(self) -> str:
        """Pillow's name of the channels."""
        return ("RGB" if self.colour else "L") + ("A" if self.alpha else "")


def image_size(size: int | str | None) -> tuple[int, int] | None:
    """Height and width of ``size``: a side, or ``HEIGHTxWIDTH``.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int | str):
        raise ArgumentTypeError("size", f"expected a number of pixels or HEIGHTxWIDTH, got {size!r}")
    sides = str(size).lower().split("x")
    if not all(side.isdecimal() and int(side) > 0 for side in sides) or len(sides) > 2:
        raise ArgumentValueError("size", f"expected a number of pixels, such as 64, or 48x64, got {size!r}")
    return int(sides[0]), int(sides[-1])


@contextmanager
def naming(path: Path, wanted: str) -> Iterator[None]:
    """Turns any error of a reader into one that names the file. A damaged file may raise anything."""
    try:
        yield
    except Exception as error:
        of_others = "unknown format; move what is no image out of the data"
        reason = of_others if isinstance(error, UnidentifiedImageError) else error
        raise ArgumentValueError("data", f"{path} cannot be read as {wanted}: {reason}") from error


class ImageFolder(Samples):
    """The images in a folder or in its sub-folders. The classes are the sorted names of the sub-folders.

    Hidden files are ignored. The constructor reads the header of every file, of more than 10,000 those of some, and the
    pixels of those of 16 bits, whose greatest value is taken for white: cameras store 12 bits in 16. Other pixels are
    read on demand.

    Args:
        folder: the folder.
        size: height and width; None is 32 x 32.
        colour: 3 channels, or 1; None is 1 if every image is grey.
        alpha: keep transparency as a further channel. Else it is blended with white.
    """

    decoded = True

    def __init__(self, folder: Path, size: tuple[int, int] | None, colour: bool | None, alpha: bool) -> None:
        classes, files = _visible(folder)
        if classes and files:
            raise ArgumentValueError(
                "data",
                f"{folder} contains both files ({files[0]}) and folders ({classes[0]}); "
                "expected either images or one folder per class",
            )
        counts = []
        for name in classes:
            deeper, of_class = _visible(folder / name)
            if deeper:
                raise ArgumentValueError(
                    "data",
                    f"{folder / name / deeper[0]} is a folder inside the class folder {name}; "
                    "move its images into the class folder itself",
                )
            if not of_class:
                raise ArgumentValueError(
                    "data", f"the class folder {folder / name} contains no images; add some, or remove it"
                )
            files += [f"{name}/{file}" for file in of_class]
            counts.append(len(of_class))
        if not files:
            raise ArgumentValueError("data", f"{folder} contains no images")
        self.folder = folder
        # Bytes in one block: a list of a million names would be copied, page by page, into each worker that counts its
        # references.
        self.names = np.array([os.fsencode(file) for file in files])
        depths, grey = self._read_headers(range(0, len(files), -(-len(files) // MAX_HEADERS)))
        if True in depths:
            depths, grey = self._read_headers(range(len(files)))  # for their white
        self.labels = np.repeat(np.arange(len(classes)), counts) if classes else None
        self.target = Target(*(size or (32, 32)), not grey if colour is None else colour, alpha)
        self.shape = self.target.shape
        layout: Layout = "HW" if self.shape[0] == 1 else "HWC"
        array = ArrayFormat("<u2", layout, 0.0, float(self.white)) if depths == {True} else ArrayFormat("|u1", layout)
        self.decoder = Decoder("images", classes=tuple(classes), array=array)

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        """The file of a sample."""
        return self.folder / os.fsdecode(self.names[index])

    def identity(self) -> Iterator[bytes]:
        start = os.fsencode(self.folder)
        for name in self.names:  # the class is in the labels; the folder may have moved
            yield b"%b\0%d\0" % (name.rpartition(b"/")[2], os.stat(os.path.join(start, name)).st_size)

    def _read_headers(self, indices: Iterable[int]) -> tuple[set[bool], bool]:
        """Whether images have 16 bits: some, all or none; and whether all are grey. Sets ``white``."""
        self.white, depths, grey = 1, set(), True
        for index in indices:
            with _opened(self.path(index)) as image:
                deep = image.mode.startswith("I")
                if deep:
                    self.white = max(self.white, _greatest(image))
                elif image.mode.startswith("F"):
                    raise ValueError("its pixels are floating-point numbers, whose range is unknown")
                depths.add(deep)
                grey = grey and (deep or is_grey(image))
        return depths, grey

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        images = [self._load(self.path(index)) for index in indices]
        if all(image.dtype == np.uint8 for image in images):
            return scaled(np.stack(images))
        return torch.stack(
            [scaled(image[None])[0] if image.dtype == np.uint8 else _to_tensor(image) for image in images]
        )

    def _load(self, path: Path) -> NDArray[Any]:
        """(H, W, channels): uint8, or of an image of 16 bits floats in [-1, 1]."""
        with _opened(path) as image:
            # Faster: a large JPEG is decoded at a reduced size, at least twice the size kept.
            image.draft("RGB" if self.target.colour else "L", (2 * self.target.width, 2 * self.target.height))
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):
                pixels = np.asarray(image, dtype=np.float32)[..., None] * (2 / self.white) - 1
                return fit_floats(pixels, self.target)
            return fit(image, self.target)


class ImageArray(ArraySamples):
    """Images in an array: bytes, whose white is 255; other whole numbers, from 0 or a negative number to the greatest
    that occurs; floats in [0, 1] or [-1, 1] where all of them are, else from 0 or the least to the greatest.

    Args:
        name: of the array, for error messages.
        pixels: of shape (N, H, W), (N, H, W, channels) or (N, channels, H, W), with 1 to 4 channels; the second of two
            and the fourth of four is alpha.
        size: height and width; None keeps the images'.
        colour: 3 channels, or 1; None keeps the images'.
        alpha: keep transparency. Else it is blended with white.
        classes: the names of labels.

    Raises:
        ValueError: a number is not finite, or all are the same.
    """

    def __init__(
        self,
        name: object,
        pixels: NDArray[Any],
        size: tuple[int, int] | None = None,
        colour: bool | None = None,
        alpha: bool = False,
        classes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(pixels)
        layout = layout_of(pixels.shape)
        assert layout is not None
        self.layout: Layout = layout
        height, width = pixels.shape[2:] if self.layout == "CHW" else pixels.shape[1:3]
        channels = 1 if self.layout == "HW" else pixels.shape[1 if self.layout == "CHW" else 3]
        height, width = size or (height, width)
        self.target = Target(height, width, channels > 2 if colour is None else colour, alpha)
        self.shape = self.target.shape
        self.low, self.high = (0.0, 255.0) if pixels.dtype == np.uint8 else _range(name, pixels)
        layout = "HWC" if layout == "HW" and self.shape[0] > 1 else layout
        self.decoder = Decoder(
            "images", classes=classes, array=ArrayFormat(pixels.dtype.str, layout, self.low, self.high)
        )

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        pixels = self.array[indices]
        if self.layout == "CHW":
            pixels = np.moveaxis(pixels, 1, 3)
        elif self.layout == "HW":
            pixels = pixels[..., None]
        target = (*self.shape[1:], self.shape[0])
        if pixels.dtype == np.uint8:
            if pixels.shape[1:] != target:
                images = (image[..., 0] if image.shape[2] == 1 else image for image in np.ascontiguousarray(pixels))
                pixels = np.stack([fit(Image.fromarray(image), self.target) for image in images])
            return scaled(pixels)
        shades = ((pixels.astype(np.float64) - self.low) * (2 / (self.high - self.low)) - 1).astype(np.float32)
        if shades.shape[1:] == target:
            return _to_tensor(shades)
        return torch.stack([_to_tensor(fit_floats(image, self.target)) for image in shades])


def layout_of(shape: tuple[int, ...]) -> Layout | None:
    """The layout of an array of images of this shape, or None of another."""
    if len(shape) == 3:
        return "HW"
    if len(shape) != 4:
        return None
    for usual in ((1, 3), (4, 2)):
        if shape[3] in usual:
            return "HWC"
        if shape[1] in usual:
            return "CHW"
    return None


def _range(name: object, pixels: NDArray[Any]) -> tuple[float, float]:
    """What black and white are; see :class:`ImageArray`."""
    least, greatest = np.inf, -np.inf
    for start, images in pieces(pixels):
        finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
        if not finite.all():
            raise ArgumentValueError(
                "data",
                f"{name}: sample {start + int(np.argmin(finite))} has values that are NaN or infinite; mend or drop it",
            )
        least, greatest = min(least, float(images.min())), max(greatest, float(images.max()))
    if least == greatest:
        raise ArgumentValueError("data", f"{name}: every value is {least:g}; expected images that differ")
    if pixels.dtype.kind == "f" and greatest <= 1 and least >= -1:
        return (-1.0 if least < 0 else 0.0), 1.0
    return min(least, 0.0), max(greatest, 0.0) if pixels.dtype.kind == "f" else max(greatest, 1.0)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file, whatever it is called, but no PostScript: for that Pillow runs another program on it."""
    Image.init()
    with naming(path, "an image"), Image.open(path, formats=[name for name in Image.ID if name != "EPS"]) as image:
        yield image


def _visible(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the sub-folders and of the files of a folder, sorted, without hidden ones, those that systems leave,
    and runs of the trainer.
    """
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _OF_SYSTEMS:
                continue
            if entry.is_dir():
                folders += [] if holds_only_runs(Path(entry.path)) else [entry.name]
            elif entry.is_file():
                files.append(entry.name)
            else:
                raise ArgumentValueError(
                    "data", f"{entry.path} is neither a file nor a folder; remove it from the data"
                )
    return sorted(folders), sorted(files)


def _greatest(image: Image.Image) -> int:
    deep = np.asarray(image)
    if deep.min() < 0 or deep.max() > 65535:
        raise ValueError("its pixels exceed 16 bits")
    return int(deep.max())


def is_grey(image: Image.Image) -> bool:
    """Whether an image of 8 bits has no colours."""
    return image.mode in ("1", "L", "LA", "La")


def fit(image: Image.Image, target: Target) -> NDArray[np.uint8]:
    """An image of 8 bits, uint8 (H, W, channels)."""
    if target.alpha:
        image = image.convert(target.mode)
    elif image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    if image.mode != target.mode:
        image = image.convert(target.mode)
    if image.size != (target.width, target.height):
        box = _box(image.height, image.width, target)
        image = image if box == (0, 0, *image.size) else image.crop(box)
        image = image.resize((target.width, target.height), Image.Resampling.BILINEAR)
    pixels = np.array(image)  # a copy: of Pillow's own memory PyTorch warns that it is read-only
    return pixels.reshape(target.height, target.width, -1)


def fit_floats(image: NDArray[Any], target: Target) -> NDArray[Any]:
    """As :func:`fit`, an image (H, W, 1 to 4 channels) of floats in [-1, 1]."""
    count = image.shape[2]
    shades, alpha = (image[..., :-1], image[..., -1:]) if count in (2, 4) else (image, np.ones_like(image[..., :1]))
    if not target.alpha:
        shades = 1 - (1 - shades) * ((alpha + 1) / 2)
    if target.colour != (shades.shape[2] == 3):
        shades = shades.repeat(3, axis=2) if target.colour else np.dot(shades, _LUMA)
    if target.alpha:
        shades = np.concatenate([shades, alpha], axis=2)
    left, top, right, bottom = _box(shades.shape[0], shades.shape[1], target)
    shades = shades[top:bottom, left:right]
    if shades.shape[:2] == (target.height, target.width):
        return shades
    size = (target.width, target.height)
    resized = [
        np.asarray(Image.fromarray(np.ascontiguousarray(channel)).resize(size, Image.Resampling.BILINEAR))
        for channel in np.moveaxis(shades, 2, 0)
    ]
    return np.stack(resized, axis=2)


def _box(height: int, width: int, target: Target) -> tuple[int, int, int, int]:
    """The largest rectangle of the target's proportions at the centre: left, top, right, bottom."""
    scale = min(width / target.width, height / target.height)
    across, down = max(1, round(scale * target.width)), max(1, round(scale * target.height))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def scaled(pixels: NDArray[np.uint8]) -> Tensor:
    """From uint8 (B, H, W, channels) to float32 (B, channels, H, W) in [-1, 1]."""
    images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).contiguous()
    return images.float().div_(127.5).sub_(1)


def _to_tensor(shades: NDArray[Any]) -> Tensor:
    """(..., H, W, channels) to (..., channels, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(shades, -1, -3)))
