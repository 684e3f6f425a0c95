"""Regions of interest, drawn in QuPath."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import shapely

from steatosis_d2.errors import InputError
from steatosis_d2.files import drop_suffix
from steatosis_d2.instances.geojson import class_name, is_ignored_class, read_features

_FOUND = ("detection", "cell", "tile")
# No slide is larger.
_WHOLE_SLIDE = shapely.box(0, 0, 1e7, 1e7)


@dataclass(frozen=True, eq=False)
class Regions:
    """
    Where to look on a slide.

    Attributes:
        union (shapely.Geometry): all of it, in px of level 0.
        named (tuple[tuple[str, shapely.Geometry]]): parts that get figures of their own; they may
            overlap.
    """

    union: shapely.Geometry
    named: tuple[tuple[str, shapely.Geometry], ...] = ()


def read_regions(path):
    """
    Read the regions of a GeoJSON file.

    As in QuPath, what has a class that begins with ``Ignore`` and ends in ``*`` is taken away, from
    the other regions or, where there are none, from the whole slide. Detections and cells are no
    regions, unless the file has nothing else. Several regions, or one with a name, are parts with
    figures of their own; a region without a name is called by its class or its number.

    Args:
        path (str or Path): GeoJSON, gzipped or not, in px of the slide's full resolution; outlines
            that cross themselves are mended, points and lines are left out.

    Returns:
        Regions: all regions, less their holes.

    Raises:
        InputError: the file is missing, is no GeoJSON, or encloses no area.
    """
    features = read_features(path)
    drawn = [one for one in features if one.properties.get("objectType") not in _FOUND] or features
    ignored = [is_ignored_class(class_name(one.properties)) for one in drawn]
    wanted, unwanted = (
        _unite([one.geometry for one, skip in zip(drawn, ignored, strict=True) if skip == state])
        for state in (False, True)
    )
    if wanted.area == 0 and unwanted.area > 0:
        wanted = _WHOLE_SLIDE
    regions = wanted.difference(unwanted)
    named = [
        (name, area)
        for name, geometry in _name_all(
            [one for one, skip in zip(drawn, ignored, strict=True) if not skip]
        )
        if (area := _unite([geometry]).difference(unwanted)).area > 0
    ]
    if regions.area == 0:
        raise InputError(
            f"'{path}' encloses no area in its {len(features)} objects; expected polygons. Draw "
            "regions in QuPath and export them as GeoJSON."
        )
    is_one = len(named) == 1 and not _own_name(drawn[ignored.index(False)])
    return Regions(regions, () if is_one else tuple(named))


def find_regions(roi, items):
    """
    The regions of each input of a run.

    Args:
        roi (str, Path, shapely geometry, dict or None): a GeoJSON file or a geometry, for one
            input; a folder with ``<name>.geojson`` for each, gzipped (``.geojson.gz``) or not; a
            dict of names and geometries, which are parts; None for all of everything.
        items (list[SlideInput]): the inputs.

    Returns:
        list[Regions or None]: of each input.

    Raises:
        InputError: a file is missing or no GeoJSON, or one is given for several inputs: regions
            are in px of one slide.
    """
    if roi is None:
        return [None] * len(items)
    if isinstance(roi, Mapping):
        roi = Regions(shapely.union_all(list(roi.values())), tuple(roi.items()))
    elif isinstance(roi, shapely.Geometry):
        roi = Regions(roi)
    elif Path(roi).is_dir():
        return [read_regions(_find_file(Path(roi), item)) for item in items]
    if len(items) > 1:
        raise InputError(
            f"one file of regions was given for {len(items)} inputs, and regions are in px of one "
            f"slide. Give a folder that holds {items[0].name}.geojson and so on for each."
        )
    return [roi if isinstance(roi, Regions) else read_regions(roi)]


def _own_name(feature):
    """What the user called a region, by name or class; empty where nothing."""
    name = feature.properties.get("name")
    return (
        name.strip() if isinstance(name, str) and name.strip() else class_name(feature.properties)
    )


def _name_all(features):
    """Name and geometry of each; what shares a name is numbered."""
    names = [_own_name(one) or f"region {number}" for number, one in enumerate(features, 1)]
    shared = {name for name, count in Counter(names).items() if count > 1}
    seen: Counter[str] = Counter()
    for name, feature in zip(names, features, strict=True):
        seen[name] += 1
        yield f"{name} {seen[name]}" if name in shared else name, feature.geometry


def _find_file(folder, item):
    names = dict.fromkeys((item.name, drop_suffix(Path(item.file_name)).name, item.file_name))
    for name in names:
        for suffix in (".geojson", ".geojson.gz"):
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    raise InputError(
        f"'{folder}' has no regions of '{item.file_name}'; expected {item.name}.geojson. Export "
        "them from QuPath, or leave this input out."
    )


def _unite(geometries):
    """Union of what has an area; of collections, their parts."""
    parts = shapely.get_parts(shapely.get_parts(geometries))
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])
