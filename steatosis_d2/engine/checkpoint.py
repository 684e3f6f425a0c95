"""Checkpoints that run no code when they are read, and are whole or not there."""

import pickle
from pathlib import Path
from urllib.error import URLError

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager

from steatosis_d2.errors import InputError
from steatosis_d2.files import replace_when_done

# Detectron2's model zoo: the project's own addresses, and its names for them.
TRUSTED_PREFIXES = (
    "detectron2://",
    "catalog://",
    "https://dl.fbaipublicfiles.com/detectron2/",
    "https://dl.fbaipublicfiles.com/detectron/",
)

# Of the backbone's trainable tensors, the share that a checkpoint must fill to count as one of
# this network's family. R-101's COCO weights fill all of R-65; R-50's fill half of R-101.
MIN_BACKBONE_SHARE = 0.5


# What a network's figures on images that it was not trained on are called in a checkpoint
VALIDATION_KEY = "validation"


def read_note(weights, key):
    """
    What a checkpoint says beside its weights.

    Args:
        weights (str): checkpoint, or an address.
        key (str): name of the entry.

    Returns:
        object: None where it has no such entry, or is a pickle, which is not opened for this.
    """
    path = PathManager.get_local_path(str(weights))
    if Path(path).suffix == ".pkl":
        return None
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True).get(key)


class SafeCheckpointer(DetectionCheckpointer):
    """
    Detectron2's checkpointer for files that come from anywhere.

    ``.pth`` files are read as tensors and plain values only. ``.pkl`` files are pickles, which
    run whatever code their maker put in, so they are read from Detectron2's own addresses only,
    unless ``allow_pickle`` says that the maker is trusted.
    """

    def __init__(
        self, model, save_dir="", *, allow_pickle=False, strict=False, resumable=True, **kwargs
    ):
        """
        Args:
            model (nn.Module): the network.
            save_dir (str): where checkpoints are written and looked for.
            allow_pickle (bool): read ``.pkl`` files from other places than Detectron2's.
            strict (bool): every tensor of the network must be in the file with its shape, and
                no other: for evaluation, where a missing one makes the figures meaningless.
            resumable (bool): whether ``--resume`` goes on from what is saved; else it is a copy
                for use, such as the best weights so far.
            kwargs (dict): as for ``DetectionCheckpointer``.
        """
        super().__init__(model, save_dir, **kwargs)
        self.resumable = resumable
        self.allow_pickle = allow_pickle
        self.strict = strict

    def load(self, path, *args, **kwargs):
        """
        Load a checkpoint, as ``DetectionCheckpointer.load``.

        Raises:
            InputError: the file is missing, cannot be downloaded, is truncated, holds code, is
                an untrusted pickle, or belongs to another network.
        """
        if not path:
            return super().load(path, *args, **kwargs)
        self._check_pickle(path)
        local_path = self._fetch(path)
        try:
            return super().load(local_path, *args, **kwargs)
        finally:
            self._parsed_url_during_load = None  # else a failed load would block the next one

    def resume_or_load(self, path, *, resume=True):
        """As ``DetectionCheckpointer.resume_or_load``; what is resumed must fit exactly."""
        if not (resume and self.has_checkpoint()):
            return self.load(path, checkpointables=[])
        strict, self.strict = self.strict, True
        try:
            return self.load(self.get_checkpoint_file())
        finally:
            self.strict = strict

    def save(self, name, **kwargs):
        """Write ``<name>.pth`` into ``save_dir``, whole or not at all."""
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: item.state_dict() for key, item in self.checkpointables.items()}
        path = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        with replace_when_done(path) as temporary:
            torch.save({"model": self.model.state_dict(), **states, **kwargs}, temporary)
        if self.resumable:
            self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename):
        """Name the checkpoint that ``--resume`` takes, whole or not at all."""
        with replace_when_done(Path(self.save_dir, "last_checkpoint")) as temporary:
            temporary.write_text(last_filename_basename)

    def _check_pickle(self, path):
        trusted = self.allow_pickle or path.startswith(TRUSTED_PREFIXES)
        if not trusted and path.split("?")[0].endswith(".pkl"):
            raise InputError(
                f"weights '{path}' are a pickle, which can run any code when it is read. If you "
                "trust its maker, add MODEL.ALLOW_PICKLE True; better, give a .pth file."
            )

    def _fetch(self, path):
        """Local path of a file or address, with the query (``?matching_heuristics=True``) kept."""
        address, question_mark, query = path.partition("?")
        try:
            local_path = self.path_manager.get_local_path(address)
        except InputError:
            raise
        except (URLError, OSError, ValueError) as error:
            raise InputError(
                f"weights '{path}' cannot be downloaded ({error}). Offline, give a local file "
                "(MODEL.WEIGHTS FILE.pth) or start from random weights (MODEL.WEIGHTS '')."
            ) from None
        if Path(local_path).is_dir():
            raise InputError(
                f"weights '{path}' are a folder; expected a file in it, such as model_best.pth."
            )
        if not Path(local_path).is_file():
            raise InputError(
                f"weights '{path}' do not exist; check the path, or start from random weights "
                "(MODEL.WEIGHTS '')."
            )
        return local_path + question_mark + query

    def _load_file(self, filename):
        try:
            return super()._load_file(filename)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"weights '{filename}' are damaged, or hold more than tensors and plain values "
                f"({str(error).splitlines()[0]}); they are not read further. Save them with "
                "torch.save({'model': model.state_dict()}, FILE)."
            ) from None
        except InputError:
            raise
        except Exception as error:  # what torch raises on junk depends on its first bytes
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"weights '{filename}' are truncated or no checkpoint at all ({reason}). Copy or "
                "download the file again."
            ) from None

    def _torch_load(self, filename):
        # Said aloud, although it is torch's default since 2.6, because everything rests on it
        return torch.load(filename, map_location="cpu", weights_only=True)

    def _load_model(self, checkpoint):
        try:
            incompatible = super()._load_model(checkpoint)
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(
                f"the checkpoint's 'model' is not a dictionary of tensors ({error}). Save it "
                "with torch.save({'model': model.state_dict()}, FILE)."
            ) from None
        self._check_fit(incompatible)
        return incompatible

    def _check_fit(self, incompatible):
        """Refuse another network's weights; what merely differs is listed by the base class."""
        misshapen = [
            f"{name} is {theirs}, expected {ours}"
            for name, theirs, ours in incompatible.incorrect_shapes
        ]
        unfilled = {name for name, *_ in incompatible.incorrect_shapes}
        unfilled.update(incompatible.missing_keys)
        # Parameters, since Detectron2 fills in the statistics of a missing FrozenBN by itself
        backbone = [
            name for name, _ in self.model.named_parameters() if name.startswith("backbone.")
        ]
        filled = sum(name not in unfilled for name in backbone)
        problems = [
            *misshapen,
            *(f"{name} is missing" for name in incompatible.missing_keys),
            *(f"{name} is not in this network" for name in incompatible.unexpected_keys),
        ]
        if filled < MIN_BACKBONE_SHARE * len(backbone) or (self.strict and problems):
            examples = "; ".join(problems[:3] + ["..."] * (len(problems) > 3))
            raise InputError(
                f"the checkpoint belongs to another network: it fills {filled} of the backbone's "
                f"{len(backbone)} trainable tensors, and {len(problems)} differ ({examples}). "
                "Give the --config-file that it was trained with, or other weights."
            )
        self.logger.info("Loaded %d of the backbone's %d trainable tensors.", filled, len(backbone))
