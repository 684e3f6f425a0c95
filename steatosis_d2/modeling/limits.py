"""The one rule by which an image's caps on objects grow with it."""

# Side of the network's input up to which the configured caps hold, in px.
REFERENCE_SIDE_PX = 1024


def scale_with_area(cap, image_sizes):
    """
    A cap for a batch of images, so that what is found does not depend on how a slide is tiled.

    Args:
        cap (int): on the objects in an image of up to 1024 x 1024 px.
        image_sizes (list[tuple[int, int]]): (height, width) of each, in px of the network's input.

    Returns:
        int: the cap, in proportion to the area of the largest beyond that.
    """
    area_px = max((height * width for height, width in image_sizes), default=0)
    return round(cap * max(1, area_px / REFERENCE_SIDE_PX**2))
