"""What a network's classes are called."""

from steatosis_d2.errors import InputError


def list_categories(cfg):
    """Names of a network's classes, in their order (tuple[str, ...])."""
    return tuple(cfg.MODEL.CATEGORIES) or (cfg.MODEL.CATEGORY,)


def check_class_names(cfg):
    """
    Check that each class of a network has a name.

    Args:
        cfg (CfgNode): of :func:`steatosis_d2.config.load_config`.

    Raises:
        InputError: there are several, and ``MODEL.CATEGORIES`` does not name them.
    """
    n_classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if len(list_categories(cfg)) != n_classes:
        raise InputError(
            f"the network has {n_classes} classes (MODEL.ROI_HEADS.NUM_CLASSES) and "
            f"MODEL.CATEGORIES is {list(cfg.MODEL.CATEGORIES)}; name them in the order of their "
            f"ids, {cfg.MODEL.CATEGORY} among them, such as \"['{cfg.MODEL.CATEGORY}', 'vessel']\"."
        )
