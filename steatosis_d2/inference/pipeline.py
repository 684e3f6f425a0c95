"""
From slides to their instances: tiles through a model, merged across borders, safe on disk.

One function, :func:`segment_batch`, does the work wherever it runs: in threads of this process, of
which one computes while the others read ahead, in worker processes, or on a cluster. Its results
come back in the order of the plan, go to the journal, and are merged while the next are made. So a
journal always holds the beginning of its plan, a resumed run ends like an unbroken one, and nothing
depends on where the work was done.
"""

import contextlib
import functools
import logging
import pickle
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from steatosis_d2.errors import InputError
from steatosis_d2.files import printable
from steatosis_d2.inference.memory import release_freed_memory
from steatosis_d2.inference.merge import BorderMerger
from steatosis_d2.inference.plan import plan_slide
from steatosis_d2.inference.slide_run import INSTANCES, SegmentedSlide, SlideRun, is_finished
from steatosis_d2.inference.tiles import Tile
from steatosis_d2.instances.instance import Instance
from steatosis_d2.instances.packing import pack_instances, unpack_instances
from steatosis_d2.labeling.pixel_size import (
    disagreement,
    estimate_slide_mpp,
    open_with_pixel_size,
)
from steatosis_d2.slides.pyramid import Slide

logger = logging.getLogger(__name__)

_model_in_use = threading.Lock()
# Slide -> who looked at it as a whole, and what came of it.
_seen: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
# The shipped networks are trained on images enlarged or reduced by factors up to this one; the
# estimate from nuclei is good to a fifth.
MAX_DISAGREEMENT = 1.6
# What a process with a network takes before it has seen a tile.
MODEL_BYTES = 1 << 30


@dataclass(frozen=True)
class Batch:
    """
    Tiles of one slide that go through the model together.

    Attributes:
        slide (Slide or bytes): where they are. In another process it is the slide's pickle, opened
            by who reads it: a cluster's scheduler handles batches, too, and may not see the files.
        tiles (list[Tile]): of one size.
    """

    slide: Slide | bytes
    tiles: list[Tile]

    def __reduce__(self):
        pickled = self.slide if isinstance(self.slide, bytes) else pickle.dumps(self.slide)
        return Batch, (pickled, self.tiles)


@dataclass(frozen=True)
class ModelFacts:
    """
    What is to be known of a model by those who do not run it.

    Attributes:
        category (str): what it is for, ``droplet`` or ``nucleus``.
        categories (tuple[str, ...]): names of all its classes.
        batch_size (int): tiles that it takes together.
        description (dict): from its ``describe()``.
        assumed_mpp (float or None): um/px that it takes images of unknown pixel size to have.
        input_scale (callable or None): um/px of a slide -> px of the network's input for one of
            its px.
        bytes_per_input_px (float or None): memory that it needs for a px of its input, roughly.
        memory_bytes (int or None): what its device has.
    """

    category: str
    categories: tuple[str, ...]
    batch_size: int
    description: dict
    assumed_mpp: float | None = None
    input_scale: Callable | None = None
    bytes_per_input_px: float | None = None
    memory_bytes: int | None = None


@dataclass
class Progress:
    """
    How far a run is. Slides are opened as their turn comes, so that all tiles are known late.

    Attributes:
        n_slides (int): opened so far.
        n_tiles (int): of these slides.
        n_done (int): finished tiles.
    """

    n_slides: int = 0
    n_tiles: int = 0
    n_done: int = 0


def describe_model(make_model):
    """
    Load a model and say what it is.

    Args:
        make_model (callable): () -> model; it pickles, and equal ones make the same model.

    Returns:
        ModelFacts: what the rest of a run needs to know.

    Raises:
        InputError: it cannot be loaded.
    """
    with _model_in_use:
        model = load_cached(make_model)
        return ModelFacts(
            model.category,
            getattr(model, "categories", (model.category,)),
            model.batch_size,
            model.describe(),
            assumed_mpp=getattr(model, "assumed_mpp", None),
            input_scale=getattr(model, "input_scale", None),
            bytes_per_input_px=getattr(model, "bytes_per_input_px", None),
            memory_bytes=getattr(model, "memory_bytes", None),
        )


# The last one only: a network can fill the memory of its device.
@functools.lru_cache(maxsize=1)
def load_cached(make_model):
    """The model that ``make_model`` makes, loaded once as long as no other is asked for."""
    return make_model()


def segment_batch(batch, *, make_model):
    """
    Read some tiles and find the instances on them.

    Args:
        batch (Batch): which tiles.
        make_model (callable): () -> model; it is called once in each process.

    Returns:
        bytes: the instances of each tile, in px of the tile, encoded.

    Raises:
        InputError: the slide is damaged there, or does not suit the model.
    """
    slide = _open_once(batch.slide) if isinstance(batch.slide, bytes) else batch.slide
    images_rgb = [
        slide.read_region(tile.left, tile.top, tile.width, tile.height) for tile in batch.tiles
    ]
    with _model_in_use:
        model = load_cached(make_model)
        try:
            groups = model(images_rgb, mpp=slide.mpp, **_look_once(make_model, slide))
        except InputError as error:
            raise InputError(f"slide '{slide.path}': {error}") from None
    return pack_instances(groups)


def segment_in_memory(slide, *, make_model, tiling):
    """
    Segment one slide without a journal, in this thread.

    Args:
        slide (Slide): open.
        make_model (callable): as in :func:`segment_slides`.
        tiling (Tiling): how it is cut into tiles.

    Returns:
        list[Instance]: in px of level 0, in the order that :func:`segment_slides` gives, too.

    Raises:
        InputError: the slide is damaged, or does not suit the model.
    """
    facts = describe_model(make_model)
    warn_of_scale(slide, facts.assumed_mpp)
    plan = plan_slide(slide, tiling, input_scale=facts.input_scale)
    merger = BorderMerger(plan.tiles, width=slide.width, height=slide.height)
    found: list[Instance] = []
    for tiles in plan.split(facts.batch_size):
        groups = unpack_instances(segment_batch(Batch(slide, tiles), make_model=make_model))
        for tile, instances in zip(tiles, groups, strict=True):
            found += filter(plan.counts, merger.add(tile, instances))
    return found


def segment_slides(
    items, *, make_model, facts, executor, tiling, parameters, folder, outputs, report
):
    """
    Segment slides one after another; the faults of one do not stop the others.

    Args:
        items (list[SlideInput]): the inputs.
        make_model (callable): () -> model; it pickles, and equal ones make the same model.
        facts (ModelFacts): from :func:`describe_model`.
        executor (Executor): from :func:`steatosis_d2.inference.parallel.open_executor`.
        tiling (Tiling): how slides are cut into tiles.
        parameters (dict): settings of the run, for its reports; JSON values.
        folder (Path): for the journals, from :func:`~.slide_run.prepare_folder`; slides whose
            journal says that they are finished are skipped.
        outputs (object): ``check(slide)`` is called before a slide is begun, and
            ``write(segmented, folder)`` at its end, with its folder among the journals; when that
            returns, the slide is finished.
        report (callable): (Progress), called after each batch.

    Returns:
        dict: file name -> why it failed.
    """
    faults: dict[str, str] = {}
    progress = Progress()
    begin = functools.partial(
        _begin,
        tiling=tiling,
        folder=folder,
        facts=facts,
        check=outputs.check,
        n_processes=executor.n_processes,
    )
    tasks = _list_tasks(items, begin, faults, progress)
    segment = functools.partial(segment_batch, make_model=make_model)
    for run, future in executor.run_in_order(segment, tasks):
        with note_fault(run.item, faults):
            if run.item.file_name in faults:
                pass  # what was under way when it failed
            elif future is not None:
                run.take(future.result())
                progress.n_done += len(run.batches[run.n_finished - 1])
            else:
                release_freed_memory()
                outputs.write(_as_segmented(run, facts, parameters), run.folder)
                run.finish()
        if future is None:
            run.close()
        report(progress)
    return faults


@contextlib.contextmanager
def note_fault(item, faults):
    """
    Note what is wrong with one input, or with the disk, and go on with the others.

    Args:
        item (SlideInput): the input.
        faults (dict): file name -> message; it is added to.
    """
    try:
        yield
    except (InputError, OSError) as error:
        message = str(error).replace(str(item.path), printable(str(item.path)))
        logger.error("%s", message)
        faults[item.file_name] = message


def time_tile(plan, *, make_model, batch_size, executor):
    """
    How long a tile takes when all is running.

    Args:
        plan (SlidePlan): with a tile or more.
        make_model (callable): as in :func:`segment_slides`.
        batch_size (int): tiles that the model takes together.
        executor (Executor): what runs it.

    Returns:
        float: seconds for each tile, with as many at once as the executor runs.
    """
    batches = plan.split(batch_size)
    middle = Batch(plan.slide, batches[len(batches) // 2])
    tasks = [(None, middle)] * executor.count_slots()
    segment = functools.partial(segment_batch, make_model=make_model)
    for _ in range(2):  # in the first round models are loaded and files read
        start = time.perf_counter()
        for _, future in executor.run_in_order(segment, tasks):
            future.result()
        elapsed = time.perf_counter() - start
    return elapsed / (len(tasks) * len(middle.tiles))


def _list_tasks(items, begin, faults, progress):
    """The batches of each slide that are not on disk yet; then one None, when it can be closed."""
    for item in items:
        run = None
        with note_fault(item, faults):
            run = begin(item)
        progress.n_slides += 1
        if run is None:
            continue
        progress.n_tiles += len(run.plan.tiles)
        progress.n_done += sum(map(len, run.batches[: run.n_finished]))
        for tiles in run.batches[run.n_finished :]:
            if item.file_name in faults:
                break
            yield run, Batch(run.plan.slide, tiles)
        yield run, None


def _begin(item, *, tiling, folder, facts, check, n_processes):
    """The slide's work, as far as an earlier run left it; None if that finished it."""
    with contextlib.ExitStack() as stack:
        slide = stack.enter_context(
            open_with_pixel_size(item.path, mpp=tiling.mpp, page=tiling.page)
        )
        check(slide)
        if is_finished(item, slide, folder=folder / item.name):
            return None
        warn_of_scale(slide, facts.assumed_mpp)
        plan = plan_slide(slide, tiling, regions=item.regions, input_scale=facts.input_scale)
        check_memory(plan, facts, n_processes=n_processes)
        run = SlideRun(item, plan, folder=folder / item.name, batch_size=facts.batch_size)
        stack.pop_all()  # from here on the run closes the slide
        return run


def check_memory(plan, facts, *, n_processes=1):
    """
    Refuse a slide whose tiles the memory does not hold, before hours are spent on it.

    Args:
        plan (SlidePlan): with its tiles.
        facts (ModelFacts): of the model; where it does not say what it needs, nothing is refused.
        n_processes (int): that run it at the same time.

    Raises:
        InputError: it needs more than the device has.
    """
    if not facts.bytes_per_input_px or not facts.memory_bytes or not plan.tiles:
        return
    n_at_once = min(facts.batch_size, len(plan.tiles))
    tile_px = max(tile.width * tile.height for tile in plan.tiles)
    input_px = tile_px * facts.input_scale(plan.slide.mpp) ** 2
    needed = n_processes * (MODEL_BYTES + n_at_once * input_px * facts.bytes_per_input_px)
    if needed > facts.memory_bytes:
        raise InputError(
            f"'{plan.slide.path}' would need about {needed / 2**30:.0f} GB of memory: "
            f"{n_at_once} tiles at once, each of {input_px / 1e6:.1f} megapixels as the network "
            f"sees it, in {n_processes} processes; there are {facts.memory_bytes / 2**30:.0f} GB. "
            "Use a smaller --batch-size, --tile-px or --workers."
        )


def warn_of_scale(slide, assumed_mpp):
    """
    Warn where a slide of unknown pixel size looks unlike what the model takes it for.

    Args:
        slide (Slide): open.
        assumed_mpp (float or None): the pixel size that the model assumes, in um/px.
    """
    if slide.mpp is not None or assumed_mpp is None:
        return
    estimated_mpp, n_nuclei = estimate_slide_mpp(slide)
    if estimated_mpp is not None and disagreement(estimated_mpp, assumed_mpp) > MAX_DISAGREEMENT:
        logger.warning(
            "'%s' states no pixel size and is taken for %g um/px; by the size of its %d nuclei it "
            "has about %g, so the result may be far off. Pass --mpp, or --mpp estimate.",
            slide.path,
            assumed_mpp,
            n_nuclei,
            estimated_mpp,
        )


def _as_segmented(run, facts, parameters):
    return SegmentedSlide(
        slide=run.plan.slide,
        tissue=run.plan.tissue,
        model=facts.description,
        category=facts.category,
        categories=facts.categories,
        parameters=parameters,
        file_name=run.item.file_name,
        name=run.item.name,
        path=run.folder / INSTANCES,
        case=run.item.case,
        named_regions=run.item.named_regions,
    )


def _look_once(make_model, slide):
    """What the model has to know of the slide beside its tiles, as keyword arguments."""
    look_at = getattr(load_cached(make_model), "look_at", None)
    if look_at is None:
        return {}
    seen_by, context = _seen.get(slide, (None, {}))
    if seen_by != make_model:
        context = look_at(slide)
        _seen[slide] = make_model, context
    return context


@functools.lru_cache(maxsize=2)  # at the end of a slide, tiles of the next one come in between
def _open_once(pickled_slide):
    return pickle.loads(pickled_slide)
