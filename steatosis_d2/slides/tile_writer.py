"""Writing a piece of a slide as an image of its own, without loss."""

import json

import tifffile

from steatosis_d2.files import replace_when_done

_UM_PER_CM = 10_000


def name_tile(slide_name, left, top):
    """A name (str) that says where a tile comes from, in px of level 0."""
    return f"{slide_name}_x{left}_y{top}"


def describe_source(slide_name, left, top):
    """Where a tile comes from (dict), in px of level 0."""
    return {"slide": slide_name, "left_px": left, "top_px": top}


def write_tile(path, image_rgb, *, mpp, source):
    """
    Write a tile as a TIFF that states its pixel size and where it comes from.

    Args:
        path (Path): the TIFF to write.
        image_rgb (ndarray): uint8, shape (H, W, 3).
        mpp (float or None): um/px.
        source (dict): where the tile comes from, which becomes the TIFF's description, as JSON.
    """
    resolution = None if mpp is None else (_UM_PER_CM / mpp, _UM_PER_CM / mpp)
    with replace_when_done(path) as temporary:
        tifffile.imwrite(
            temporary,
            image_rgb,
            photometric="rgb",
            compression="zlib",
            predictor=True,
            resolution=resolution,
            resolutionunit=tifffile.RESUNIT.NONE if mpp is None else tifffile.RESUNIT.CENTIMETER,
            description=json.dumps(source),
            metadata=None,
            software=False,
        )
