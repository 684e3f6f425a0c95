"""Names of the configs and weights that ship with the package."""

import hashlib
from pathlib import Path

from steatosis_d2.errors import InputError

# Installed, the configs lie inside the package; in a source checkout, beside it.
_CONFIG_FOLDERS = (Path(__file__).parent / "configs", Path(__file__).parents[2] / "configs")

# Config -> its trained weights, and their SHA-256: a damaged copy must not give wrong numbers.
_WEIGHTS_FOLDER = Path(__file__).parent / "weights"
_SHIPPED_WEIGHTS = {
    "liver/starter.yaml": (
        "liver_starter.pth",
        "38461e438b81882052990be6ad61aae3358e5b7749a9db4e1e7c2635d9824bd3",
    ),
    "nucleus/starter.yaml": (
        "nucleus_starter.pth",
        "c16d1cec3de78ca749842c466bff2194ac5bacbe297000fb95d233332e5bee7f",
    ),
}


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

    Examples:
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


def has_weights(name):
    """
    Whether trained weights ship for a config.

    Args:
        name (str or Path): as in :func:`get_config_file`.

    Returns:
        bool: False for a file of the user's own.
    """
    return _name_of(name) in _SHIPPED_WEIGHTS


def get_weights(name):
    """
    Trained weights that ship for a config.

    Args:
        name (str or Path): as in :func:`get_config_file`.

    Returns:
        str: path of the checkpoint; its model card lies beside it, with the suffix ``.md``.

    Raises:
        InputError: none ship for this config, or the file is not what was shipped.
    """
    if not has_weights(name):
        trained = ", ".join(_SHIPPED_WEIGHTS) or "none"
        raise InputError(
            f"no weights ship for the config '{name}' (for these they do: {trained}); give a "
            "checkpoint of your own, for instance with --weights."
        )
    file_name, sha256 = _SHIPPED_WEIGHTS[_name_of(name)]
    path = _WEIGHTS_FOLDER / file_name
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise InputError(
            f"the weights '{path}' are missing or damaged: their SHA-256 is not {sha256}. "
            "Install the package again."
        )
    return str(path)


def _name_of(name):
    """A config's name among ours, whether it is given by name or by path; else the path."""
    path = Path(get_config_file(name)).resolve()
    return next(
        (
            path.relative_to(folder.resolve()).as_posix()
            for folder in _CONFIG_FOLDERS
            if path.is_relative_to(folder.resolve())
        ),
        str(path),
    )


def get_config(name, overrides=(), *, weights=None, trained=False, mpp=None):
    """
    Config of a model, ready for ``DefaultPredictor(cfg)``.

    Args:
        name (str or Path): as in :func:`get_config_file`.
        overrides (list[str]): ``KEY VALUE`` pairs in one flat list, as on the command line.
        weights (str or None): a checkpoint that replaces the config's ``MODEL.WEIGHTS``;
            ``""`` for random weights.
        trained (bool): take the weights that ship for this config.
        mpp (float or None): pixel size in um/px of the images that ``DefaultPredictor`` is given,
            which cannot state it themselves.

    Returns:
        CfgNode: not frozen; the backbones, data sets and addresses that it may name are
        registered.

    Raises:
        InputError: there is no such config or key, or none of the weights asked for.
    """
    if trained:
        weights = get_weights(name)
    given = {"MODEL.WEIGHTS": weights, "TEST.MPP": mpp}
    words = [str(word) for item in given.items() if item[1] is not None for word in item]
    # Detectron2 takes seconds to import; names and paths must not.
    from steatosis_d2.config import load_config
    from steatosis_d2.model_zoo import addresses  # noqa: F401  (registers steatosis-d2://)

    return load_config(get_config_file(name), [*overrides, *words])
