"""Regions of interest, drawn in QuPath."""

import shapely

from steatosis_d2.errors import InputError
from steatosis_d2.instances.geojson import read_features


def read_regions(path):
    """
    Read the regions of a GeoJSON file as one geometry.

    Args:
        path (str or Path): GeoJSON, gzipped or not, in px of the slide's full resolution; outlines
            that cross themselves are mended, points and lines are left out.

    Returns:
        shapely.Polygon or shapely.MultiPolygon: the union of all regions, less their holes.

    Raises:
        InputError: the file is missing, is no GeoJSON, or encloses no area.
    """
    geometries = [feature.geometry for feature in read_features(path)]
    parts = shapely.get_parts(shapely.get_parts(geometries))  # of collections, then of these
    union = shapely.union_all(parts[shapely.get_dimensions(parts) == 2])
    if union.area == 0:
        raise InputError(
            f"'{path}' encloses no area in its {len(geometries)} objects; expected polygons. Draw "
            "regions in QuPath and export them as GeoJSON."
        )
    return union
