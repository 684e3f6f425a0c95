"""OME-Zarr (NGFF 0.1 to 0.5): which of its pictures is meant, and its pixels and their size."""

import itertools
import json
import logging
import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from steatosis_d2.data.pixel_size import um_in
from steatosis_d2.data.pixels import UnknownPixels
from steatosis_d2.errors import needs_extra

logger = logging.getLogger(__name__)

# What a folder is searched for; the last two are zip files.
OME_ZARR_SUFFIXES = frozenset({".zarr", ".ozx", ".zarr.zip"})
# One of them lies in each folder of a Zarr: of version 3 the first, of version 2 the others.
_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
_ZIP_MAGIC = b"PK\3\4"
# Of a stack of stacks; more are an accident.
_MOST_PICTURES = 100_000
_AXES_BEFORE_0_3 = ("t", "c", "z", "y", "x")
_RED_GREEN_BLUE = [0xFF0000, 0x00FF00, 0x0000FF]
# Chunks that are smaller are read several at once: each call of zarr's takes about a millisecond.
_PIECE_SIDE_PX = 512


@dataclass(frozen=True, eq=False)
class ZarrPicture:
    """
    One picture of an OME-Zarr, in all its resolutions.

    Attributes:
        number (int): among the file's pictures, from 1.
        levels (tuple[zarr.Array]): from the finest on.
        axes (tuple[str]): of these arrays, one letter each.
        index (dict): where the picture lies on the axes that are neither its rows, nor its
            columns, nor its colours.
        stated_mpp_xy (tuple[float, float] or None): in um; NaN where it is not stated.
    """

    number: int
    levels: tuple
    axes: tuple[str, ...]
    index: dict[str, int]
    stated_mpp_xy: tuple[float, float] | None

    @property
    def width(self):
        """In px (int)."""
        return self.shape(0)[1]

    @property
    def height(self):
        """In px (int)."""
        return self.shape(0)[0]

    @property
    def is_coloured(self):
        """Whether it is red, green and blue; else it is grey."""
        return "c" in self.axes and "c" not in self.index

    @property
    def dtype(self):
        """Of its values (dtype), in the machine's order of bytes."""
        return self.levels[0].dtype.newbyteorder("=")

    def shape(self, level):
        """Height and width (int) of a level, in px."""
        return self._rows_and_columns(self.levels[level].shape)

    def chunk_shape(self, level):
        """Height and width (int) of what can be read alone, in px."""
        return self._rows_and_columns(self.levels[level].chunks)

    def piece_shape(self, level):
        """Height and width (int) of what is best read at once, in px: a chunk, or several."""
        chunk_height, chunk_width = self.chunk_shape(level)
        width = chunk_width * max(1, _PIECE_SIDE_PX // chunk_width)
        return chunk_height * max(1, _PIECE_SIDE_PX**2 // (width * chunk_height)), width

    def read(self, level, rows, columns):
        """
        A window of a level as stored; what is missing has the fill value, as zarr reads it.

        Args:
            level (int): its number, 0 is the finest.
            rows, columns (slice): the window.

        Returns:
            ndarray: shape (h, w) or (h, w, 3). What zarr raises depends on the damage.
        """
        place = {**self.index, "y": rows, "x": columns}
        pixels = self.levels[level][tuple(place.get(axis, slice(None)) for axis in self.axes)]
        left = [axis for axis in self.axes if axis not in self.index]
        order = [left.index(axis) for axis in "yxc" if axis in left]
        return np.asarray(pixels, self.dtype).transpose(order)

    def _rows_and_columns(self, sizes):
        return tuple(sizes[self.axes.index(axis)] for axis in "yx")


def is_ome_zarr_folder(path):
    """
    Whether a path is a folder that is one picture, not a folder of pictures.

    Args:
        path (Path): of anything.

    Returns:
        bool: by what it holds, or its name.
    """
    return path.is_dir() and (
        path.suffix.lower() == ".zarr" or any((path / name).is_file() for name in _METADATA)
    )


def is_spatialdata_store(path):
    """
    Whether a folder holds results in Zarr, and no slide: LazySlide keeps one beside each slide.

    Args:
        path (Path): of anything.

    Returns:
        bool: True for what SpatialData wrote.
    """
    for name in ("zarr.json", ".zattrs") if path.is_dir() else ():
        try:
            content = json.loads((path / name).read_bytes())
            return "spatialdata_attrs" in content.get("attributes", content)
        except (OSError, ValueError, AttributeError, TypeError):
            continue
    return False


def is_zip(path):
    """
    Whether a file begins as a zip file does.

    Args:
        path (Path): an existing file.

    Returns:
        bool: whatever its name.
    """
    with path.open("rb") as file:
        return file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC


def open_ome_zarr(path):
    """
    Open an OME-Zarr.

    Args:
        path (Path): a folder, or a zip file that holds one, at its root or in a folder.

    Returns:
        zarr.Group: its ``store`` is to be closed.

    Raises:
        InputError: the package ``zarr`` is not installed.
        UnknownPixels: it holds no group of Zarr. What else zarr raises depends on the damage.
    """
    with needs_extra("zarr", f"slide '{path}' is an OME-Zarr, which"):
        import zarr
        from imagecodecs.numcodecs import register_codecs
    register_codecs(verbose=False)  # JPEG and its like, for Zarr 2
    root = "" if path.is_dir() else _find_root(path)
    store = path if path.is_dir() else zarr.storage.ZipStore(path, mode="r")
    try:
        # Consolidated metadata are a copy, which may be out of date.
        return zarr.open_group(store, path=root, mode="r", use_consolidated=False)
    except (FileNotFoundError, zarr.errors.ContainsArrayError):
        raise UnknownPixels(
            "holds no group of Zarr; expected an OME-Zarr. Give the folder that holds its .zattrs "
            "or zarr.json."
        ) from None


def list_zarr_pictures(group, path):
    """
    All pictures of an OME-Zarr: those of a stack, or of channels that are no colours, one by one.

    Args:
        group (zarr.Group): from :func:`open_ome_zarr`.
        path (Path): of the file or folder, for messages.

    Returns:
        list[ZarrPicture]: at least one.

    Raises:
        UnknownPixels: it is no picture, or parts of it are missing. What else is raised depends on
            the damage.
    """
    pictures: list[ZarrPicture] = []
    for image in _find_images(group):
        pictures += _split_image(image, path, first_number=len(pictures) + 1)
    return pictures


def count_missing_chunks(picture, path):
    """
    How many chunks, or shards, of the finest level are not there.

    Args:
        picture (ZarrPicture): one of the file's.
        path (Path): of the file or folder.

    Returns:
        tuple[int, int]: how many are missing, and how many there are in whole.
    """
    array = picture.levels[0]
    pieces = zip(array.shape, array.shards or array.chunks, strict=True)
    n_chunks = math.prod(math.ceil(length / side) for length, side in pieces)
    names = (
        name.rsplit("/", maxsplit=1)[-1]
        for name in list_zarr_files(path)
        if name.startswith(f"{array.path}/")
    )
    n_stored = sum(name not in ("", "zarr.json") and name[0] != "." for name in names)
    return max(0, n_chunks - n_stored), n_chunks


def list_zarr_files(path):
    """
    All files of a Zarr; zarr's own listing takes 50 times as long.

    Args:
        path (Path): a folder or a zip file.

    Yields:
        str: name of a file relative to it, with slashes, in any order.
    """
    if path.is_dir():
        for folder, _, names in os.walk(path):
            at = "" if folder == str(path) else f"{os.path.relpath(folder, path)}/"
            yield from (f"{at}{name}" for name in names)
    else:
        with zipfile.ZipFile(path) as archive:
            yield from archive.namelist()


def _find_root(path):
    """The folder in a zip file that holds the metadata, the outermost one."""
    roots = {
        PurePosixPath(name).parent
        for name in list_zarr_files(path)
        if PurePosixPath(name).name in _METADATA
    }
    if not roots:
        raise UnknownPixels("is a zip file without an OME-Zarr; expected one. Unpack it.")
    depth = min(len(root.parts) for root in roots)
    outermost = sorted(str(root) for root in roots if len(root.parts) == depth)
    if len(outermost) > 1:
        raise UnknownPixels(
            f"holds {len(outermost)} OME-Zarr ({', '.join(outermost[:3])}); expected one. Unpack "
            "it."
        )
    return outermost[0].removeprefix(".")


def _ome_attributes(group):
    """OME's metadata of a group (dict), which lie a level deeper since 0.5."""
    attributes = group.attrs.asdict()
    return attributes.get("ome", attributes)


def _find_images(group):
    """The groups that are images, with rows and columns in several resolutions."""
    attributes = _ome_attributes(group)
    for kind, example in (("plate", "A/1/0"), ("well", "0")):
        if kind in attributes:
            raise UnknownPixels(
                f"is a {kind} of several pictures; expected one. Give the folder of one, such as "
                f"{example} in it."
            )
    if "image-label" in attributes:
        raise UnknownPixels("is a label image; expected a picture. Give the folder above 'labels'.")
    if "multiscales" in attributes:
        return [group]
    if "bioformats2raw.layout" in attributes:
        return [_open_node(group, name) for name in _list_series(group)]
    raise UnknownPixels(
        "holds no picture: its metadata have no 'multiscales'; expected OME-Zarr 0.1 to 0.5. Give "
        "the folder of the picture, or export it again."
    )


def _list_series(group):
    """Names of the images that bioformats2raw wrote beside each other."""
    if "OME" in group and "series" in (attributes := _ome_attributes(group["OME"])):
        return attributes["series"]
    return itertools.takewhile(group.__contains__, map(str, itertools.count()))


def _split_image(group, path, *, first_number):
    """The pictures of one image, in the order of its axes."""
    attributes = _ome_attributes(group)
    multiscale = attributes["multiscales"][0]  # the first is the one to show
    units = _read_units(multiscale)
    axes = tuple(units)
    arrays = [_open_node(group, dataset["path"]) for dataset in multiscale["datasets"]]
    _check_arrays(arrays, axes)
    sizes = dict(zip(axes, arrays[0].shape, strict=True))
    has_colours = sizes.get("c") == 3 and _is_red_green_blue(attributes.get("omero") or {})
    inner = ("y", "x", "c") if has_colours else ("y", "x")
    outer = [axis for axis in axes if axis not in inner]
    n_pictures = math.prod(sizes[axis] for axis in outer)
    if n_pictures > _MOST_PICTURES:
        raise UnknownPixels(
            f"states {n_pictures} pictures; expected one. Export it, or copy the file again if it "
            "is damaged."
        )
    levels = tuple(_take_reduced(arrays, axes))
    stated_mpp_xy = _read_mpp_xy(multiscale, units, path)
    return [
        ZarrPicture(number, levels, axes, dict(zip(outer, place, strict=True)), stated_mpp_xy)
        for number, place in enumerate(
            itertools.product(*(range(sizes[axis]) for axis in outer)), first_number
        )
    ]


def _open_node(group, name):
    try:
        return group[name]
    except KeyError:
        raise UnknownPixels(f"is not whole: '{name}' is missing in it. Copy it again.") from None


def _read_units(multiscale):
    """Axis, a letter each -> its unit or None; 0.4 describes axes, and 0.3 names them."""
    if "coordinateSystems" in multiscale:
        raise UnknownPixels(
            "is an OME-Zarr later than 0.5; expected 0.1 to 0.5. Export it as one of these."
        )
    stated = multiscale.get("axes", _AXES_BEFORE_0_3)
    described = [axis if isinstance(axis, dict) else {"name": axis} for axis in stated]
    return {
        "c" if axis.get("type") == "channel" else axis["name"].lower(): axis.get("unit")
        for axis in described
    }


def _check_arrays(arrays, axes):
    """Refuse what has no rows and columns."""
    for array in arrays:
        lengths = (*array.shape, *array.chunks, *(array.shards or ()))
        if not {"y", "x"} <= set(axes) or len(array.shape) != len(axes) or min(lengths) < 1:
            raise UnknownPixels(
                f"has an array of shape {tuple(array.shape)} with the axes {', '.join(axes)}; "
                "expected one length an axis, y and x among them. Export it again."
            )


def _take_reduced(arrays, axes):
    """The finest array, and each one after it that is smaller than the last, in y and x alone."""
    last = None
    for array in arrays:
        sizes = dict(zip(axes, array.shape, strict=True))
        if last is None or (
            all(sizes[axis] <= last[axis] for axis in "yx")
            and all(sizes[axis] == last[axis] for axis in axes if axis not in "yx")
        ):
            last = sizes
            yield array


def _is_red_green_blue(omero):
    """Whether three channels are the colours of one picture, as far as the metadata say."""
    colours = [channel.get("color") for channel in omero.get("channels") or ()]
    if None in colours or len(colours) != 3:
        return True
    return [int(colour.lstrip("#"), 16) & 0xFFFFFF for colour in colours] == _RED_GREEN_BLUE


def _read_mpp_xy(multiscale, units, path):
    """Pixel size in x and y, in um; NaN where it is not stated."""
    axes = tuple(units)
    try:
        scales = np.ones(len(axes))
        for step in (
            *multiscale["datasets"][0].get("coordinateTransformations", ()),
            *multiscale.get("coordinateTransformations", ()),
        ):
            if step["type"] == "scale":
                scales *= np.asarray(step["scale"], np.float64)
    except (KeyError, TypeError, ValueError, AttributeError):
        logger.warning("'%s' states its pixel size in a way that is not understood.", path)
        return None
    mpp_xy = []
    for axis in "xy":
        scale, unit = float(scales[axes.index(axis)]), units[axis]
        mpp_xy.append(scale * um_in(unit))
        if math.isnan(mpp_xy[-1]) and (unit is not None or scale != 1):
            logger.warning(
                "'%s' states a pixel size of %g in '%s', which is no length; it is not used.",
                path,
                scale,
                unit or "",
            )
    return tuple(mpp_xy)
