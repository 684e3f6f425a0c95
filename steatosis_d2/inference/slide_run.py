"""One slide in work: its journal, the merging of its tiles, and what comes out in the end."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from steatosis_d2.data.ome_zarr import list_zarr_files
from steatosis_d2.errors import InputError
from steatosis_d2.files import write_json
from steatosis_d2.inference.journal import Journal, read_records
from steatosis_d2.inference.merge import BorderMerger
from steatosis_d2.instances.packing import pack_instances, unpack_instances
from steatosis_d2.slides.pyramid import Slide
from steatosis_d2.slides.tissue import TissueMask

JOURNAL = "journal"
INSTANCES = "instances"
SETTINGS = "settings.json"
DONE = "done"
# Enough for all that a slide's header says, and for the last bytes of a copy that broke off.
_FINGERPRINT_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class SegmentedSlide:
    """
    A slide and all that was found on it.

    Attributes:
        slide (Slide): open.
        tissue (TissueMask): where it was looked at.
        model (dict): what found it, from the model's ``describe()``.
        category (str): what was looked for, ``droplet`` or ``nucleus``.
        categories (tuple[str, ...]): names of the model's classes, that among them.
        parameters (dict): the settings of the run.
        file_name (str): what tables and COCO files call the slide.
        name (str): what its output files begin with.
        path (Path): the file that holds the instances.
        case (str or None): whose slide it is.
        named_regions (tuple[tuple[str, shapely.Geometry]]): parts that were drawn.
    """

    slide: Slide
    tissue: TissueMask
    model: dict
    category: str
    categories: tuple[str, ...]
    parameters: dict
    file_name: str
    name: str
    path: Path
    case: str | None = None
    named_regions: tuple = ()

    def instances(self):
        """What was found, as :func:`read_instances` gives it."""
        return read_instances(self.path)


def read_instances(path):
    """
    What was found on a slide, read from disk piece by piece.

    Args:
        path (Path): that holds the instances.

    Yields:
        Instance: in px of level 0; the order is the same however the work was done.
    """
    for payload in read_records(path):
        [instances] = unpack_instances(payload)
        yield from instances


class SlideRun:
    """
    A slide in work.

    Attributes:
        item (SlideInput): which one.
        folder (Path): where its journal lies.
        plan (SlidePlan): what there is to do.
        batches (list[list[Tile]]): all of them, in order.
        n_finished (int): how many of the batches are on disk.
    """

    def __init__(self, item, plan, *, folder, batch_size):
        """
        Args:
            item (SlideInput): which slide.
            plan (SlidePlan): what there is to do; its slide is closed by :meth:`close`.
            folder (Path): for the journal; if it holds one already, that is gone on with.
            batch_size (int): tiles that the model takes together.

        Raises:
            InputError: the journal is of another file than the input is now.
            OSError: the folder cannot be written to.
        """
        self.item, self.plan, self.folder = item, plan, folder
        self.batches = plan.split(batch_size)
        self.n_finished = 0
        folder.mkdir(parents=True, exist_ok=True)
        check_settings(folder / SETTINGS, identify(item, plan.slide), owner=item.path)
        (folder / INSTANCES).unlink(missing_ok=True)
        self._journal = Journal(folder / JOURNAL)
        self._instances = Journal(folder / INSTANCES)
        self._merger = BorderMerger(plan.tiles, width=plan.slide.width, height=plan.slide.height)
        for payload in read_records(self._journal.path):
            self._merge(payload)

    def take(self, payload):
        """
        Put the result of the next batch on disk, then merge it.

        Args:
            payload (bytes): instances of each tile, encoded.

        Raises:
            OSError: the disk is full, for instance.
        """
        self._journal.append(payload)
        self._merge(payload)

    def _merge(self, payload):
        tiles = self.batches[self.n_finished]
        counted = [
            instance
            for tile, instances in zip(tiles, unpack_instances(payload), strict=True)
            for instance in self._merger.add(tile, instances)
            if self.plan.counts(instance)
        ]
        if counted:
            # Made anew from the journal if it is lost, so that waiting for the disk is not needed.
            self._instances.append(pack_instances([counted]), durable=False)
        self.n_finished += 1

    def close(self):
        """Let go of the slide and the journal; what is on disk stays there."""
        self._journal.close()
        self._instances.close()
        self.plan.slide.close()

    def finish(self):
        """Remember that all is done with the slide, and delete the tiles' results."""
        self._instances.sync()
        (self.folder / DONE).touch()
        (self.folder / JOURNAL).unlink()


def prepare_folder(folder, settings, *, resume):
    """
    Make the folder that holds a run's journals ready: to begin, or to go on.

    Args:
        folder (Path): that holds one folder a slide, or does not exist.
        settings (dict): of the run, JSON values.
        resume (bool): go on with what the folder holds.

    Raises:
        InputError: an unfinished run would be lost, or the one to resume had other settings.
    """
    if not resume:
        if any(_is_unfinished(slide_folder) for slide_folder in folder.glob("*/")):
            raise InputError(
                f"'{folder.parent}' holds a run that was not finished. Add --resume to go on with "
                f"it; or delete '{folder}' to begin anew."
            )
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    check_settings(folder / SETTINGS, settings, owner=folder.parent)


def _is_unfinished(folder):
    """Whether a slide's folder holds results of tiles that are not in its outputs."""
    journal = folder / JOURNAL
    return journal.exists() and journal.stat().st_size > 0 and not (folder / DONE).exists()


def is_finished(item, slide, *, folder):
    """
    Whether all outputs of a slide were written in an earlier run.

    Args:
        item (SlideInput): which one.
        slide (Slide): open.
        folder (Path): where its journal would lie.

    Returns:
        bool: True if nothing is left to do.

    Raises:
        InputError: they are those of another file than the input is now.
    """
    if not (folder / DONE).exists():
        return False
    check_settings(folder / SETTINGS, identify(item, slide), owner=item.path)
    return True


def check_settings(path, settings, *, owner):
    """
    Write down settings, or, where there are some from before, make sure that they are the same.

    Args:
        path (Path): JSON file of the settings.
        settings (dict): JSON values.
        owner (Path): whose settings they are, for the message.

    Raises:
        InputError: they differ.
    """
    if not path.exists():
        write_json(path, settings, indent=2)
        return
    earlier = json.loads(path.read_text(encoding="utf-8"))
    differences = "; ".join(_list_differences(earlier, json.loads(json.dumps(settings))))
    if differences:
        raise InputError(
            f"'{owner}' cannot be resumed, since it has changed: {differences}. Resume as it was "
            "begun, or begin anew in another output folder."
        )


def identify(item, slide):
    """
    What tells a slide from another one of the same name.

    Args:
        item (SlideInput): which one.
        slide (Slide): open.

    Returns:
        dict: size of the file and the picture, um/px, and a fingerprint of the file's first and
        last MB; not its date or folder, so that a copy is the same slide. Of an OME-Zarr in a
        folder, the same of its files one after another, and their names and sizes. And what its
        results rest on beside it: the regions, and whose it is.
    """
    n_bytes, fingerprint = (
        _fingerprint_folder(slide.path) if slide.path.is_dir() else _fingerprint(slide.path)
    )
    return {
        "bytes": n_bytes,
        "sha256_of_ends": fingerprint,
        "width_px": slide.width,
        "height_px": slide.height,
        "mpp": slide.mpp,
        "regions_sha256": item.regions_sha256,
        "case": item.case,
    }


def _fingerprint(path):
    """Size of a file in bytes, and a digest of its ends."""
    with path.open("rb") as file:
        first = file.read(_FINGERPRINT_BYTES)
        n_bytes = file.seek(0, 2)
        file.seek(max(0, n_bytes - _FINGERPRINT_BYTES))
        return n_bytes, hashlib.sha256(first + file.read()).hexdigest()


def _fingerprint_folder(folder):
    """Size of all files in a folder, and a digest of their names, sizes and the ends of it all."""
    sizes = {name: (folder / name).stat().st_size for name in sorted(list_zarr_files(folder))}
    digest = hashlib.sha256(ascii(sizes).encode())
    for names in (list(sizes), list(reversed(sizes))):
        n_left = _FINGERPRINT_BYTES
        for name in names:
            with (folder / name).open("rb") as file:
                content = file.read(n_left)
            digest.update(content)
            n_left -= len(content)
            if not n_left:
                break
    return sum(sizes.values()), digest.hexdigest()


def _list_differences(earlier, now, prefix=""):
    """One text for each value that differs between two nested dicts."""
    for key in sorted({*earlier, *now}):
        before, after = earlier.get(key), now.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _list_differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key} was {before!r} and is {after!r}"
