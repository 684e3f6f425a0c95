"""Addresses of the weights that ship, for wherever Detectron2 takes a path of weights."""

from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler

from steatosis_d2.model_zoo import get_weights

PREFIX = "steatosis-d2://"


class ShippedWeightsHandler(PathHandler):
    """
    Reads ``steatosis-d2://liver/starter.yaml`` as the weights that ship for this config.

    So ``MODEL.WEIGHTS`` can name them in config files and on the command line, wherever the
    package is installed, as it names Detectron2's own by ``detectron2://``.
    """

    def _get_supported_prefixes(self):
        return [PREFIX]

    def _get_local_path(self, path, force=False, **kwargs):
        return get_weights(path.removeprefix(PREFIX))

    def _open(self, path, mode="r", buffering=-1, **kwargs):
        return PathManager.open(self._get_local_path(path), mode)


PathManager.register_handler(ShippedWeightsHandler())
