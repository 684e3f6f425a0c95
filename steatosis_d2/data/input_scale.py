"""The one rule by which images are brought to a network's scale, in training and at test."""


def input_scale(image_mpp, *, scale, network_mpp):
    """
    Factor from px of an image to px of the network's input.

    Args:
        image_mpp (float or None): the image's pixel size in um/px, where it is known.
        scale (float): ``INPUT.SCALE``, the factor for images without a known pixel size.
        network_mpp (float): ``INPUT.MPP``, the network's pixel size in um/px; 0 means that the
            network knows no physical scale, and ``scale`` holds for every image.

    Returns:
        float: more than 1 enlarges.

    Examples:
        >>> input_scale(0.5, scale=1.0, network_mpp=0.25)
        2.0
        >>> input_scale(None, scale=1.0, network_mpp=0.25)
        1.0
    """
    return image_mpp / network_mpp if image_mpp and network_mpp else scale
