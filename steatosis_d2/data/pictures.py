"""Which picture is meant where a file holds several."""

from steatosis_d2.data.pixels import UnknownPixels

# A picture with more than this share of the largest one's px is no thumbnail of it.
RIVAL_SHARE = 0.5


def choose_picture(pictures, *, page=None):
    """
    The picture that is meant.

    Args:
        pictures (list): one or more, of a TIFF or an OME-Zarr, each with ``number`` (int, from 1),
            ``width``, ``height`` (int, px) and ``is_coloured`` (bool).
        page (int or None): its number; None takes the largest, if no other comes near.

    Returns:
        object: one of them.

    Raises:
        UnknownPixels: there is no such page, or several have a claim.
    """
    if page is not None:
        for picture in pictures:
            if picture.number == page:
                return picture
        numbers = ", ".join(str(picture.number) for picture in pictures)
        raise UnknownPixels(f"has no page {page}; expected one of {numbers}.")
    most = max(picture.width * picture.height for picture in pictures)
    rivals = [one for one in pictures if one.width * one.height > RIVAL_SHARE * most]
    coloured = [picture for picture in rivals if picture.is_coloured]
    if len(coloured) == 1:  # with a mask beside it, for instance
        return coloured[0]
    if len(rivals) > 1:
        listed = ", ".join(f"{one.number}: {one.width} x {one.height} px" for one in rivals[:6])
        raise UnknownPixels(
            f"holds {len(rivals)} pictures of like size, a stack or several slides (page {listed}"
            f"{', ...' if len(rivals) > 6 else ''}); expected one. Choose it with --page, or "
            "export it."
        )
    return rivals[0]
