"""The ways to outline droplets without a trained network, and the parameters that each takes."""

from dataclasses import asdict

from steatosis_d2.labeling.generator import label_by_clump_split
from steatosis_d2.labeling.parameters import choose_parameters
from steatosis_d2.labeling.watershed import label_by_watershed

CLUMP_SPLIT = "clump-split"
METHODS = {CLUMP_SPLIT: label_by_clump_split, "watershed": label_by_watershed}


def describe_labels(images, *, method, mpp):
    """
    COCO ``info``: the method, the pixel size that was given, and the parameters that were used.

    Args:
        images (list[dict]): COCO records of the images that were labelled.
        method (str): one of ``METHODS``.
        mpp (float, "estimate" or None): what the user said of the pixel size.

    Returns:
        dict: ``parameters`` has one entry for each pixel size, the key being um/px.
    """
    used = sorted({image["mpp"] for image in images if image.get("mpp") is not None})
    return {
        "description": "droplet labels without a trained model",
        "method": method,
        "mpp": mpp,
        "parameters": {f"{used_mpp:g}": asdict(choose_parameters(used_mpp)) for used_mpp in used},
    }
