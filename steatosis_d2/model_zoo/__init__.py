"""Names of the configs and weights that ship with the package."""

from pathlib import Path

from steatosis_d2.errors import InputError

# Installed, the configs lie inside the package; in a source checkout, beside it.
_CONFIG_FOLDERS = (Path(__file__).parent / "configs", Path(__file__).parents[2] / "configs")


def list_configs():
    """
    Names of the configs that ship with the package.

    Returns:
        list[str]: for instance ``liver/starter.yaml``, in alphabetical order.
    """
    folder = next(folder for folder in _CONFIG_FOLDERS if folder.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.yaml"))


def get_config_file(name):
    """
    Path of a config file, given its path or the name of one that ships with the package.

    Args:
        name (str or Path): an existing file, or a name as in :func:`list_configs`; a leading
            ``configs/`` is allowed, so that the README's commands work from anywhere.

    Returns:
        str: path of the file.

    Raises:
        InputError: there is no such file or name.

    Example:
        >>> get_config_file("liver/starter.yaml")  # doctest: +ELLIPSIS
        '...configs/liver/starter.yaml'
    """
    if Path(name).is_file():
        return str(name)
    for folder in _CONFIG_FOLDERS:
        path = folder / str(name).removeprefix("configs/")
        if path.is_file():
            return str(path)
    raise InputError(
        f"config '{name}' is neither a file nor one of ours: {', '.join(list_configs())}."
    )


def get_config(name, *, weights=None):
    """
    Config of a model, ready for ``DefaultPredictor(cfg)``.

    Args:
        name (str): as in :func:`get_config_file`.
        weights (str or None): a checkpoint that replaces the config's ``MODEL.WEIGHTS``;
            ``""`` for random weights.

    Returns:
        CfgNode: not frozen; the backbones and data sets that it names are registered.
    """
    # Detectron2 takes seconds to import; names and paths must not.
    from steatosis_d2.config import load_config

    return load_config(name, [] if weights is None else ["MODEL.WEIGHTS", str(weights)])
