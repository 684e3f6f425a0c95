"""Training and evaluation loops."""

from steatosis_d2.install_detectron2 import require_detectron2

require_detectron2()

from steatosis_d2.engine.checkpoint import SafeCheckpointer  # noqa: E402
from steatosis_d2.engine.trainer import Trainer  # noqa: E402

__all__ = ["SafeCheckpointer", "Trainer"]
