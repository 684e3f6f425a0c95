"""GeoJSON as QuPath writes and reads it, in px of the slide's full resolution."""

import contextlib
import gzip
import io
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import shapely
from shapely.geometry import shape

from steatosis_d2.errors import InputError
from steatosis_d2.files import replace_when_done

logger = logging.getLogger(__name__)

# Half the time of zlib's default level for files 2% larger.
_COMPRESSION_LEVEL = 5
_ID_PREFIX = "00000000-0000-4000-8000-"
_GZIP_MAGIC = b"\x1f\x8b"
_COMPACT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class Feature:
    """
    One object of a GeoJSON file.

    Attributes:
        geometry (shapely.Geometry): valid, in px of the slide's full resolution.
        properties (dict): as in the file; QuPath's have ``objectType`` and ``classification``.
        id (object): QuPath's UUID of the object (str), or what else the file gives; None if
            nothing.
        is_mended (bool): whether the outline in the file crossed itself.
    """

    geometry: shapely.Geometry
    properties: dict
    id: object = None
    is_mended: bool = False


def detection_feature(
    polygons, *, number, category, color_rgb, measurements, object_type="detection"
):
    """
    A QuPath object, a detection unless told otherwise.

    A million detections load and pan well in QuPath; annotations do not, but can be edited.

    Args:
        polygons (list[list[ndarray]]): from :func:`steatosis_d2.instances.outlines.trace_outlines`.
        number (int): of the instance in its table; becomes the object's name and id.
        category (str): name of its class in QuPath.
        color_rgb (tuple[int, int, int]): colour of that class.
        measurements (dict): name (str) -> finite number.
        object_type (str): ``detection`` or ``annotation``.

    Returns:
        dict: GeoJSON feature.
    """
    coordinates = [[ring.tolist() for ring in polygon] for polygon in polygons]
    # QuPath takes a MultiPolygon of one part for an error of its writer.
    is_single = len(coordinates) == 1
    return {
        "type": "Feature",
        # QuPath wants a UUID, and a random one would make two equal runs differ.
        "id": f"{_ID_PREFIX}{number:012x}",
        "geometry": {
            "type": "Polygon" if is_single else "MultiPolygon",
            "coordinates": coordinates[0] if is_single else coordinates,
        },
        "properties": {
            "objectType": object_type,
            "name": str(number),
            "classification": {"name": category, "color": color_rgb},
            "measurements": measurements,
        },
    }


@contextlib.contextmanager
def open_feature_collection(path):
    """
    Write a FeatureCollection feature by feature, whole or not at all.

    Args:
        path (str or Path): the file to write; gzipped if its name ends in ``.gz``.

    Yields:
        callable: takes a feature (dict) and writes it.
    """
    with (
        replace_when_done(path) as temporary,
        _open_text(temporary) as file,
    ):
        separator = "\n"

        def write(feature):
            nonlocal separator
            file.write(separator + _COMPACT.encode(feature))
            separator = ",\n"

        file.write('{"type":"FeatureCollection","features":[')
        yield write
        file.write("\n]}\n")


def read_number(feature):
    """
    The number that an object was written with by :func:`detection_feature`.

    Args:
        feature (Feature): of any origin.

    Returns:
        int or None: None for objects of other origin, such as those drawn in QuPath.
    """
    match = re.fullmatch(_ID_PREFIX + "([0-9a-f]{12})", str(feature.id))
    return int(match[1], 16) if match else None


def class_name(properties):
    """
    What QuPath calls the class of an object.

    Args:
        properties (dict): of a :class:`Feature`.

    Returns:
        str: empty without a class; QuPath 0.4 and later may give a list of names.
    """
    classification = properties.get("classification") or {}
    if not isinstance(classification, dict):
        return str(classification)
    return str(classification.get("name") or ": ".join(classification.get("names") or []))


def is_ignored_class(name):
    """
    Whether QuPath takes a class for what is not to be looked at.

    Args:
        name (str): from :func:`class_name`.

    Returns:
        bool: True for ``Ignore*`` and what is derived from it.
    """
    first = name.split(":")[0].strip().casefold()
    return first.startswith("ignore") and first.endswith("*")


def _open_text(path):
    if path.suffix == ".gz":
        return open_gzip_text(path)
    return path.open("w", encoding="utf-8", newline="\n")


@contextlib.contextmanager
def open_gzip_text(path):
    """
    Open a gzipped text file to write; equal texts give equal bytes, whenever and wherever.

    Args:
        path (Path): the file to write.

    Yields:
        TextIO: UTF-8.
    """
    with (
        path.open("wb") as raw,
        # neither name nor time goes into the header
        gzip.GzipFile("", "wb", _COMPRESSION_LEVEL, raw, mtime=0) as compressed,
        io.TextIOWrapper(compressed, encoding="utf-8", newline="\n") as file,
    ):
        yield file


def read_features(path):
    """
    Read a GeoJSON file, gzipped or not.

    Args:
        path (str or Path): a FeatureCollection, a Feature, a list of Features, or a geometry.

    Returns:
        list[Feature]: geometries are made valid (outlines drawn by hand may cross themselves).

    Raises:
        InputError: the file is missing, is no JSON, or holds what is no GeoJSON.
    """
    path = Path(path)
    content = _read_json(path)
    records = content if isinstance(content, list) else _list_records(content)
    return [_as_feature(record, path, number) for number, record in enumerate(records, 1)]


def _read_json(path):
    if not path.is_file():
        raise InputError(f"GeoJSON file '{path}' does not exist; check the path.")
    content = path.read_bytes()
    try:
        if content.startswith(_GZIP_MAGIC):
            content = gzip.decompress(content)
        return json.loads(content)
    except (ValueError, OSError, EOFError, RecursionError) as error:
        raise InputError(
            f"'{path}' is not GeoJSON ({error}); expected a file as QuPath exports with "
            "'File > Export objects as GeoJSON', gzipped or not."
        ) from None


def _list_records(content):
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        features = content.get("features")
        return features if isinstance(features, list) else [None]
    return [content]


def _as_feature(record, path, number):
    properties: dict = {}
    identity = None
    geometry = record
    if isinstance(record, dict) and record.get("type") == "Feature":
        geometry = record.get("geometry")
        if isinstance(record.get("properties"), dict):
            properties = record["properties"]
        identity = record.get("id")  # by the standard it may be a number
    try:
        # what shapely and numpy raise depends on what is wrong
        geometry = shape(geometry)
        is_mended = not geometry.is_valid
        if is_mended:
            reason = shapely.is_valid_reason(geometry)
            logger.warning("'%s': object number %d is mended (%s)", path, number, reason)
            geometry = shapely.make_valid(geometry)
        return Feature(geometry, properties, identity, is_mended)
    except Exception as error:
        raise InputError(
            f"'{path}': object number {number} is no GeoJSON feature or geometry ({error}); "
            "expected a FeatureCollection as QuPath exports it."
        ) from None
