"""SpatialData: one Zarr store a slide, for scverse, napari-spatialdata and LazySlide."""

import logging
import warnings

import anndata
import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import zarr
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Scale

from steatosis_d2.errors import InputError
from steatosis_d2.files import replace_folder_when_done
from steatosis_d2.inference.further_formats import FurtherFormat
from steatosis_d2.inference.table import GEOMETRY, read_description
from steatosis_d2.instances.instance import Instance
from steatosis_d2.instances.outlines import build_geometries, trace_outlines
from steatosis_d2.measurement.summary import TERMS

# Name of these parts where wsidata and LazySlide look for them.
TISSUE, THUMBNAIL, SLIDE_PROPERTIES = "tissues", "wsi_thumbnail", "slide_properties"
REGIONS, TABLE = "regions", "measurements"
# wsidata's own.
THUMBNAIL_PX = 2000
# Who wrote a store, and with which model and settings.
_DESCRIPTION = "steatosis_d2"
_ROWS_AT_ONCE = 20_000
# What tells where an instance is, and what it is. All else are its measurements.
_NOT_MEASURED = ("instance_id", "category", "truncated", "dropped_by")
_PLACES = ("left_", "top_", "width_", "height_", "centroid_")


def check_store(path):
    """
    Refuse to replace what is no store of this program, such as a slide in Zarr.

    Args:
        path (Path): where a store will be written.

    Raises:
        InputError: there is something else.
    """
    try:
        is_ours = not path.exists() or _DESCRIPTION in zarr.open_group(path, mode="r").attrs
    except (OSError, ValueError, KeyError):  # it is no group of Zarr
        is_ours = False
    if not is_ours:
        raise InputError(
            f"'{path}' is there already, and this program did not write it. Move it away, or "
            "choose another output folder."
        )


def write_store(path, segmented, table_path):
    """
    Write what was found on a slide as a SpatialData store, whole or not at all.

    Outlines and measurements are those of the table; only the latter are ever held as a whole.

    Args:
        path (Path): the store, a folder.
        segmented (SegmentedSlide): slide and tissue.
        table_path (Path): from :func:`steatosis_d2.inference.table.open_table`.

    Raises:
        InputError: the table is damaged, or something else is in the store's place.
    """
    check_store(path)
    description = read_description(table_path)
    if description is None or GEOMETRY not in pq.read_schema(table_path).names:
        raise InputError(f"'{table_path}' has no outlines; segment the slide anew.")
    name = TERMS[segmented.category].plural
    store = _build_store(segmented, table_path, description, name=name)
    # Its older releases say where they have saved a store: under the temporary name.
    logging.getLogger("spatialdata").setLevel(logging.WARNING)
    with replace_folder_when_done(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what will change in later releases of Zarr
        store.write(temporary)
        if name in store:
            _copy_outlines(table_path, temporary / "shapes" / name / "shapes.parquet")


def _build_store(segmented, table_path, description, *, name):
    """The store, but for the outlines of all instances but the first."""
    slide = segmented.slide
    shapes = {
        name: _read_first_outline(table_path),
        TISSUE: _outline_tissue(segmented.tissue),
        REGIONS: _list_regions(segmented.named_regions),
    }
    return SpatialData(
        images={THUMBNAIL: _shrink(slide)},
        shapes={
            key: ShapesModel.parse(rows, transformations=_place(slide))
            for key, rows in shapes.items()
            if len(rows)  # SpatialData knows no empty ones
        },
        tables={TABLE: _build_table(table_path, region=name)},
        attrs={
            _DESCRIPTION: description,
            SLIDE_PROPERTIES: {"shape": [slide.height, slide.width], "mpp": slide.mpp},
        },
    )


def _place(slide, *, scale_xy=(1.0, 1.0)):
    """Where an element lies: in px of level 0, and in um where the pixel size is known."""
    systems = {"global": 1.0} | ({"um": slide.mpp} if slide.mpp else {})
    return {
        name: Scale(np.multiply(scale_xy, unit), axes=("x", "y")) for name, unit in systems.items()
    }


def _shrink(slide):
    """The slide as a small picture."""
    picture_rgb = slide.thumbnail(THUMBNAIL_PX)
    height, width = picture_rgb.shape[:2]
    return Image2DModel.parse(
        np.moveaxis(picture_rgb, 2, 0),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        transformations=_place(slide, scale_xy=(slide.width / width, slide.height / height)),
    )


def _read_first_outline(table_path):
    """In place of all outlines, of which SpatialData would take 6 kB of memory each."""
    first = next(_read_outlines(table_path, batch_size=1), None)
    rows = first.to_pydict() if first else {"instance_id": [], GEOMETRY: []}
    return geopandas.GeoDataFrame(
        geometry=shapely.from_wkb(rows[GEOMETRY]),
        index=pd.Index(rows["instance_id"], name="instance_id"),
    )


def _copy_outlines(table_path, shapes_path):
    """Replace the file of SpatialData's that holds the first outline by one that holds all."""
    schema = pq.read_schema(shapes_path)
    geo = pq.read_schema(table_path).metadata[b"geo"]
    schema = schema.with_metadata(schema.metadata | {b"geo": geo})
    with pq.ParquetWriter(shapes_path, schema, compression="zstd") as writer:
        for batch in _read_outlines(table_path, batch_size=_ROWS_AT_ONCE):
            writer.write_table(pa.Table.from_batches([batch]).select(schema.names).cast(schema))


def _read_outlines(table_path, *, batch_size):
    columns = ["instance_id", GEOMETRY]
    return pq.ParquetFile(table_path).iter_batches(batch_size, columns=columns)


def _outline_tissue(tissue):
    """A row for each piece of tissue."""
    if not tissue.mask.any():
        return geopandas.GeoDataFrame({"tissue_id": []}, geometry=[])
    [polygons] = trace_outlines([Instance(tissue.mask, 0, 0, 1.0)])
    # The last cells reach beyond the slide.
    limits_xy = tissue.width, tissue.height
    pieces = [
        [[np.minimum(ring_xy * tissue.cell_px, limits_xy) for ring_xy in polygon]]
        for polygon in polygons
    ]
    return geopandas.GeoDataFrame(
        {"tissue_id": np.arange(len(pieces))}, geometry=build_geometries(pieces)
    )


def _list_regions(named_regions):
    names, geometries = zip(*named_regions, strict=True) if named_regions else ((), ())
    return geopandas.GeoDataFrame({"name": names}, geometry=list(geometries))


def _build_table(table_path, *, region):
    """The measurements (AnnData) of the shapes that are called ``region``."""
    columns = [name for name in pq.read_schema(table_path).names if name != GEOMETRY]
    table = pd.read_parquet(table_path, columns=columns)
    is_measured = ~table.columns.str.startswith(_PLACES) & ~table.columns.isin(_NOT_MEASURED)
    obs = table.loc[:, ~is_measured].assign(
        region=pd.Categorical([region] * len(table)),
        dropped_by=table["dropped_by"].astype("category"),
    )
    measurements = anndata.AnnData(
        table.loc[:, is_measured].to_numpy(np.float32),
        obs=obs.set_axis(table["instance_id"].astype(str).rename(None)),
        var=pd.DataFrame(index=table.columns[is_measured]),
        obsm={"spatial": table[["centroid_x_px", "centroid_y_px"]].to_numpy()},
    )
    if not len(table):  # it annotates nothing
        return TableModel.parse(measurements)
    return TableModel.parse(
        measurements, region=region, region_key="region", instance_key="instance_id"
    )


FORMAT = FurtherFormat(".zarr", write_store, check_place=check_store)
