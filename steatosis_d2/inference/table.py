"""The table of one slide's instances: a GeoParquet file, written while outlines are traced."""

import contextlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from steatosis_d2.errors import InputError
from steatosis_d2.files import replace_when_done
from steatosis_d2.instances.outlines import build_geometries

GEOMETRY = "geometry"
_DESCRIPTION = "steatosis_d2"
# What waits to be written is outlines above all, some 1.2 kB a droplet.
_ROW_GROUP = 20_000
_LITTLE_ENDIAN = 1


@contextlib.contextmanager
def open_table(path, table, segmented):
    """
    Write the table of one slide's instances as GeoParquet 1.0, whole or not at all.

    Args:
        path (str or Path): the file to write.
        table (pandas.DataFrame): one row an instance; NaN becomes null.
        segmented (SegmentedSlide): where the instances come from; its pixel size, model and
            parameters go into the file's metadata, as JSON.

    Yields:
        callable: takes the outlines of the next rows, at least one (list, as
        :func:`steatosis_d2.instances.outlines.trace_outlines` gives them), and writes these rows.
        The outlines are the last column, WKB in px of level 0.
    """
    columns = pa.Schema.from_pandas(table, preserve_index=False).remove_metadata()
    geometry = pa.field(GEOMETRY, pa.binary())
    schema = columns.append(geometry).with_metadata(
        {
            _DESCRIPTION: json.dumps(_describe_table(segmented)),
            "geo": json.dumps(_describe_geometry(table)),
        }
    )
    waiting: list[bytes] = []
    n_written = 0
    with (
        replace_when_done(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):

        def write(outlines):
            waiting.extend(shapely.to_wkb(build_geometries(outlines), byte_order=_LITTLE_ENDIAN))
            if len(waiting) >= _ROW_GROUP:
                write_waiting()

        def write_waiting():
            nonlocal n_written
            rows = table.iloc[n_written : n_written + len(waiting)]
            rows = pa.Table.from_pandas(rows, columns, preserve_index=False)
            writer.write_table(rows.append_column(geometry, pa.array(waiting, pa.binary())))
            n_written += len(waiting)
            waiting.clear()

        yield write
        if waiting:
            write_waiting()


def read_description(path):
    """
    What a table says of itself.

    Args:
        path (Path): a Parquet file.

    Returns:
        dict or None: pixel size, unit, model and parameters; None where another program wrote it.

    Raises:
        InputError: it is no Parquet file, or a damaged one.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except pa.ArrowInvalid as error:
        raise InputError(f"'{path}' is damaged, or no Parquet file ({error}).") from None
    stated = metadata.get(_DESCRIPTION.encode())
    return json.loads(stated) if stated else None


def read_model_of(folder):
    """
    What segmented the slides of a run, as their tables say.

    Args:
        folder (Path): of the run's files.

    Returns:
        dict or None: as the model's ``describe()`` gave it; None where there is no table.
    """
    for path in sorted(Path(folder).glob("*.parquet")):
        description = read_description(path)
        if description:
            return description["model"]
    return None


def _describe_table(segmented):
    return {
        "mpp": segmented.slide.mpp,
        "mpp_source": segmented.slide.mpp_source,
        "unit": "px" if segmented.slide.mpp is None else "um",
        "geometry": "px of the full resolution, x to the right, y down, from the upper left corner",
        "model": segmented.model,
        "parameters": segmented.parameters,
    }


def _describe_geometry(table):
    """The metadata that make a Parquet file one of GeoParquet."""
    column: dict = {
        "encoding": "WKB",
        # Stated before any is traced, so whether there are MultiPolygons is not known yet.
        "geometry_types": ["Polygon", "MultiPolygon"],
        "crs": None,
        "orientation": "counterclockwise",
    }
    if len(table):
        left, top = table["left_px"], table["top_px"]
        right, bottom = left + table["width_px"], top + table["height_px"]
        sides = left.min(), top.min(), right.max(), bottom.max()
        column["bbox"] = [int(side) for side in sides]
    return {"version": "1.0.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
