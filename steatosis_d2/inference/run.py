"""A run: all inputs through one model by the same settings."""

import functools
import logging
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from steatosis_d2.errors import InputError
from steatosis_d2.inference import pipeline
from steatosis_d2.inference.outputs import Reporting
from steatosis_d2.inference.parallel import open_executor
from steatosis_d2.inference.plan import Tiling
from steatosis_d2.inference.slide_run import prepare_folder
from steatosis_d2.measurement.summary import list_columns

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSettings:
    """
    What all inputs of a run share.

    Attributes:
        facts (ModelFacts): of the model.
        tiling (Tiling): how slides are cut into tiles.
        reporting (Reporting): what is counted.
    """

    facts: pipeline.ModelFacts
    tiling: Tiling
    reporting: Reporting

    @property
    def parameters(self):
        """All settings but the model's, as JSON values."""
        batch_size = {"batch_size": self.facts.batch_size}
        return self.tiling.describe() | batch_size | self.reporting.describe()


def run_pipeline(
    items,
    make_model,
    *,
    tiling,
    reporting,
    outputs,
    journals,
    resume,
    workers,
    scheduler,
    progress,
):
    """
    All inputs through the model.

    Args:
        items (list[SlideInput]): the inputs.
        make_model (callable): gives the model, in whatever process.
        tiling (Tiling): how slides are cut into tiles.
        reporting (Reporting): what is counted.
        outputs (object): what is written, as for :func:`~.pipeline.segment_slides`.
        journals (Path): folder with one folder an input.
        resume (bool): go on with what is there.
        workers (int), scheduler (str or None): as for :func:`steatosis_d2.segment`.
        progress (bool): show a bar on a terminal.

    Returns:
        tuple[RunSettings, dict]: what all inputs share, and file name -> why it failed.

    Raises:
        InputError: the model cannot be loaded, or a run with other settings is in the folder.
    """
    with open_executor(workers=workers, scheduler=scheduler) as executor:
        facts = executor.submit(pipeline.describe_model, make_model).result()
        run = RunSettings(facts, tiling, reporting)
        if reporting.calibration is not None:
            _check_calibration(reporting.calibration, facts)
        prepare_folder(journals, {"model": facts.description} | run.parameters, resume=resume)
        with _progress_bar(len(items), is_shown=progress) as report:
            failed = pipeline.segment_slides(
                items,
                make_model=make_model,
                facts=facts,
                executor=executor,
                tiling=tiling,
                parameters=run.parameters,
                folder=journals,
                outputs=outputs,
                report=report,
            )
    return run, failed


def _check_calibration(calibration, facts):
    """
    Refuse limits of what is not measured, and warn of those that are of another network.

    Args:
        calibration (GradeCalibration): to grade by.
        facts (ModelFacts): of the model that segments.

    Raises:
        InputError: the summary has no such column.
    """
    if calibration.measure not in list_columns(facts.category):
        raise InputError(
            f"grade calibration '{calibration.name}' is of '{calibration.measure}', which is not "
            "measured here; expected a column of summary.csv, such as fat_area_percent."
        )
    weights = facts.description.get("weights_sha256")
    if calibration.weights_sha256 not in (None, weights):
        logger.warning(
            "The limits in '%s' were fitted on what another network measured. Fit them again.",
            calibration.name,
        )


@contextmanager
def _progress_bar(n_slides, *, is_shown):
    """A function that moves a bar on; slides not yet opened are taken to be of average size."""
    with logging_redirect_tqdm(), tqdm(unit="tile", disable=None if is_shown else True) as bar:
        yield functools.partial(_show, bar, n_slides=n_slides)


def _show(bar, progress, *, n_slides):
    bar.total = round(progress.n_tiles * n_slides / progress.n_slides)
    bar.update(progress.n_done - bar.n)
