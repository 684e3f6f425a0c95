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
from dataclasses import dataclass

from steatosis_d2.errors import InputError
from steatosis_d2.inference.memory import release_freed_memory
from steatosis_d2.inference.plan import plan_slide
from steatosis_d2.inference.slide_run import INSTANCES, SegmentedSlide, SlideRun, is_finished
from steatosis_d2.inference.tiles import Tile
from steatosis_d2.instances.packing import pack_instances
from steatosis_d2.slides.pyramid import Slide
from steatosis_d2.slides.slide import open_slide

logger = logging.getLogger(__name__)

_model_in_use = threading.Lock()


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
        category (str): what it finds, ``droplet`` or ``nucleus``.
        batch_size (int): tiles that it takes together.
        description (dict): from its ``describe()``.
    """

    category: str
    batch_size: int
    description: dict


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
        model = _load_model(make_model)
        return ModelFacts(model.category, model.batch_size, model.describe())


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
        model = _load_model(make_model)
        try:
            groups = model(images_rgb, mpp=slide.mpp)
        except InputError as error:
            raise InputError(f"slide '{slide.path}': {error}") from None
    return pack_instances(groups)


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
        _begin, tiling=tiling, folder=folder, batch_size=facts.batch_size, check=outputs.check
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
        logger.error("%s", error)
        faults[item.file_name] = str(error)


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


def _begin(item, *, tiling, folder, batch_size, check):
    """The slide's work, as far as an earlier run left it; None if that finished it."""
    with contextlib.ExitStack() as stack:
        slide = stack.enter_context(open_slide(item.path, mpp=tiling.mpp))
        check(slide)
        if is_finished(item, slide, folder=folder / item.name):
            return None
        plan = plan_slide(slide, tiling)
        run = SlideRun(item, plan, folder=folder / item.name, batch_size=batch_size)
        stack.pop_all()  # from here on the run closes the slide
        return run


def _as_segmented(run, facts, parameters):
    return SegmentedSlide(
        slide=run.plan.slide,
        tissue=run.plan.tissue,
        model=facts.description,
        category=facts.category,
        parameters=parameters,
        file_name=run.item.file_name,
        name=run.item.name,
        path=run.folder / INSTANCES,
    )


@functools.lru_cache(maxsize=2)  # at the end of a slide, tiles of the next one come in between
def _open_once(pickled_slide):
    return pickle.loads(pickled_slide)


# The last one only: a network can fill the memory of its device.
@functools.lru_cache(maxsize=1)
def _load_model(make_model):
    return make_model()
