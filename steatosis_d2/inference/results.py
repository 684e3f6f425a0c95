"""What a run found, for use from Python: tables and instances, read from disk when asked for."""

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path

from steatosis_d2.inference.further_formats import list_missing_formats, write_formats
from steatosis_d2.inference.outputs import (
    measure_slide,
    write_run_outputs,
    write_slide_outputs,
)
from steatosis_d2.inference.plan import plan_slide
from steatosis_d2.inference.slide_run import INSTANCES, SegmentedSlide, read_instances
from steatosis_d2.labeling.pixel_size import open_with_pixel_size
from steatosis_d2.measurement.summary import fault_row


class SlideResult:
    """
    What was found on one input.

    Attributes:
        file_name (str): what tables and COCO files call it.
        name (str): what its output files begin with.
        path (Path): the input.
    """

    def __init__(self, item, run, *, folder, scratch=None):
        """
        Args:
            item (SlideInput): which input.
            run (RunSettings): what all inputs share.
            folder (Path): that holds its instances.
            scratch (TemporaryDirectory or None): that holds the folder; it lives as long as this.
        """
        self.file_name, self.name, self.path = item.file_name, item.name, item.path
        self.folder = folder
        self._item = item
        self._run, self._scratch = run, scratch

    def __repr__(self):
        return f"SlideResult({self.file_name!r})"

    def instances(self):
        """
        Everything that was found, one by one, in the order of :attr:`table`.

        Yields:
            Instance: in px of the input's full resolution; also what a filter dropped.
        """
        yield from read_instances(self.folder / INSTANCES)

    @property
    def table(self):
        """One row an instance (pandas.DataFrame), as in ``<name>.parquet``; without outlines."""
        return self._measured.table

    @property
    def summary(self):
        """The input's row of ``summary.csv`` (dict): None where a figure is not defined."""
        return self._measured.summary

    @property
    def parts(self):
        """Rows of ``summary.csv`` of named regions and pieces (list[dict])."""
        return [row for _, row in self._measured.parts]

    def write(self, folder, *, result_folder=None):
        """
        Write ``<name>.parquet``, ``<name>.geojson.gz``, ``<name>_overlay.png`` and ``formats``.

        Args:
            folder (str or Path): where to; it is created.
            result_folder (Path or None): where to leave what the files of the whole run need.

        Raises:
            InputError: the input cannot be read any more.
            OSError: the folder cannot be written to.
        """
        with self._open() as segmented:
            write_slide_outputs(
                segmented,
                folder,
                result_folder=result_folder or self.folder,
                reporting=self._run.reporting,
            )

    def write_missing_formats(self, folder):
        """
        Write what an earlier run, which finished this input, was not asked for.

        Args:
            folder (str or Path): that holds the input's files.

        Raises:
            InputError: the input cannot be read any more, or its table is damaged.
            OSError: the folder cannot be written to.
        """
        missing = list_missing_formats(self._run.reporting.formats, self.folder)
        if missing:
            with self._open() as segmented:
                write_formats(missing, segmented, Path(folder), result_folder=self.folder)

    @functools.cached_property
    def _measured(self):
        with self._open() as segmented:
            return measure_slide(segmented, self._run.reporting)

    @contextlib.contextmanager
    def _open(self):
        tiling = self._run.tiling
        with open_with_pixel_size(self.path, mpp=tiling.mpp, page=tiling.page) as slide:
            yield SegmentedSlide(
                slide=slide,
                tissue=plan_slide(slide, tiling, regions=self._item.regions).tissue,
                model=self._run.facts.description,
                category=self._run.facts.category,
                categories=self._run.facts.categories,
                parameters=self._run.parameters,
                file_name=self.file_name,
                name=self.name,
                path=self.folder / INSTANCES,
                case=self._item.case,
                named_regions=self._item.named_regions,
            )


class RunResults(Sequence):
    """
    What was found on all inputs of a run: a sequence of :class:`SlideResult`.

    An entry is taken by its number or by its file name. What was found lies in the run's output
    folder, or in a temporary one that lives as long as this object or one of its entries.

    Attributes:
        faults (list[str]): why inputs could not be segmented.
        model (dict): what segmented, as its ``describe()`` says.
    """

    def __init__(self, items, run, *, journals, failed, faults, scratch=None):
        """
        Args:
            items (list[SlideInput]): the inputs.
            run (RunSettings): what they share.
            journals (Path): folder with one folder an input.
            failed (dict): file name -> why it failed; these are left out.
            faults (list[str]): all that went wrong, also what was no input at all.
            scratch (TemporaryDirectory or None): that holds the journals.
        """
        self.faults, self.model = faults, run.facts.description
        self._run = run
        self._fault_rows = [
            fault_row(item.file_name, failed[item.file_name], case=item.case)
            for item in items
            if item.file_name in failed
        ]
        self._slides = [
            SlideResult(item, run, folder=journals / item.name, scratch=scratch)
            for item in items
            if item.file_name not in failed
        ]

    def __len__(self):
        return len(self._slides)

    def __getitem__(self, key):
        if isinstance(key, str):
            return {slide.file_name: slide for slide in self._slides}[key]
        return self._slides[key]

    def __repr__(self):
        return f"<{len(self)} inputs segmented, {len(self.faults)} failed>"

    def write(self, folder):
        """
        Write all files that the command ``steatosis-d2 segment`` writes, with the same bytes.

        Args:
            folder (str or Path): where to; it is created.

        Raises:
            InputError: an input cannot be read any more.
            OSError: the folder cannot be written to.
        """
        for slide in self._slides:
            slide.write(folder)
        self.write_run_files(folder)

    def write_run_files(self, folder):
        """
        Write ``predictions.json``, ``summary.csv`` and ``report.html``, once each slide's are.

        Args:
            folder (str or Path): where to.
        """
        write_run_outputs(
            [slide.folder for slide in self._slides],
            Path(folder),
            category=self._run.facts.category,
            categories=self._run.facts.categories,
            model=self.model,
            parameters=self._run.parameters,
            faults=self._fault_rows,
            calibration=self._run.reporting.calibration,
        )
