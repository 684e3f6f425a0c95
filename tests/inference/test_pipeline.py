"""The pipeline in this process: the same instances for any tiles, any interruption, any fault."""

import errno
import re
from dataclasses import dataclass, field

import pytest
import shapely
from benchmarks.virtual_slide import TISSUE_RGB, ColorModel, DiskSlide
from PIL import Image

from steatosis_d2.errors import InputError
from steatosis_d2.inference import pipeline
from steatosis_d2.inference.parallel import open_executor
from steatosis_d2.inference.plan import SlideInput, Tiling, name_inputs
from steatosis_d2.inference.slide_run import prepare_folder


@dataclass
class Recorder:
    """Outputs that are kept in memory."""

    instances: dict = field(default_factory=dict)
    segmented: list = field(default_factory=list)
    fault_of: str = ""

    def check(self, slide):
        if slide.path.name == self.fault_of:
            raise InputError(f"'{slide.path}' is refused")

    def write(self, segmented, folder):
        assert folder.is_dir()
        self.instances[segmented.file_name] = content(segmented.instances())
        self.segmented.append(segmented)


def content(instances):
    """What can be compared, in order."""
    return [
        (item.top, item.left, item.crop.shape, item.crop.tobytes(), item.score, item.truncated)
        for item in instances
    ]


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory):
    """1400 x 1100 px with some 200 disks of 10 to 416 px, as a lossless picture."""
    path = tmp_path_factory.mktemp("slides") / "disks.png"
    slide = DiskSlide(1400, 1100, seed=3)
    Image.fromarray(slide.read_region(0, 0, 1400, 1100)).save(path)
    return path


def run(
    paths, folder, *, make_model=ColorModel, resume=False, recorder=None, regions=None, **tiling
):
    """Segment files in this process; gives what was recorded, and the faults."""
    recorder = recorder or Recorder()
    items = [SlideInput(path, path.name, path.stem, regions) for path in paths]
    tiling = Tiling(**{"tile_px": 256, "overlap_px": 64} | tiling)
    with open_executor() as executor:
        facts = pipeline.describe_model(make_model)
        prepare_folder(folder, {"model": facts.description} | tiling.describe(), resume=resume)
        faults = pipeline.segment_slides(
            items,
            make_model=make_model,
            facts=facts,
            executor=executor,
            tiling=tiling,
            parameters={},
            folder=folder,
            outputs=recorder,
            report=lambda progress: None,
        )
    return recorder, faults


@pytest.fixture(scope="module")
def whole(slide_path, tmp_path_factory):
    """What an unbroken run with tiles of 256 px gives."""
    recorder, faults = run([slide_path], tmp_path_factory.mktemp("whole"))
    assert faults == {}
    return recorder.instances["disks.png"]


@pytest.mark.parametrize("tile_px", [256, 512, 1024, 2048])
def test_tiles_of_any_size_give_the_true_disks(slide_path, tmp_path, tile_px):
    recorder, _ = run([slide_path], tmp_path, tile_px=tile_px)
    truth = DiskSlide(1400, 1100, seed=3).instances(0, 0, 1400, 1100)
    assert len(truth) > 150
    found = sorted(recorder.instances["disks.png"])
    assert [item[:5] for item in found] == sorted(item[:5] for item in content(truth))
    at_border = {
        (item.top, item.left)
        for item in truth
        if min(item.top, item.left) == 0 or item.right == 1400 or item.bottom == 1100
    }
    assert {item[:2] for item in found if item[5]} == at_border


class FailingModel(ColorModel):
    """Finds disks until it has been called so many times, then fails."""

    def __init__(self, n_calls, error):
        self.n_calls, self.error = n_calls, error

    def __call__(self, images_rgb, *, mpp):
        if self.n_calls == 0:
            raise self.error
        self.n_calls -= 1
        return super().__call__(images_rgb, mpp=mpp)


@pytest.mark.parametrize("n_calls", [0, 1, 17])
@pytest.mark.parametrize("n_bytes_lost", [0, 1, 1000])
def test_resumed_run_ends_like_an_unbroken_one(slide_path, tmp_path, whole, n_calls, n_bytes_lost):
    model = FailingModel(n_calls, InputError("no more"))
    recorder, faults = run([slide_path], tmp_path, make_model=lambda: model)
    assert "no more" in faults["disks.png"]
    assert recorder.instances == {}
    journal = tmp_path / "disks" / "journal"
    journal.write_bytes(journal.read_bytes()[: -n_bytes_lost or None])
    recorder, faults = run([slide_path], tmp_path, resume=True)
    assert faults == {}
    assert recorder.instances["disks.png"] == whole


def test_finished_slide_leaves_no_journal_and_is_skipped_on_resume(slide_path, tmp_path):
    run([slide_path], tmp_path)
    left = sorted(path.name for path in (tmp_path / "disks").iterdir())
    assert left == ["done", "instances", "settings.json"]
    model = FailingModel(0, AssertionError("called"))
    recorder, faults = run([slide_path], tmp_path, make_model=lambda: model, resume=True)
    assert recorder.instances == {}
    assert faults == {}


def test_what_does_not_fit_the_memory_is_refused_before_it_begins(slide_path, tmp_path):
    class LargeModel(ColorModel):
        bytes_per_input_px, memory_bytes = 1000.0, 2 << 30

        def __init__(self, batch_size):
            self.batch_size = batch_size

        def input_scale(self, mpp):
            return 4.0

        def __call__(self, images_rgb, *, mpp):
            assert self.batch_size == 1, "refused before it is called"
            return super().__call__(images_rgb, mpp=mpp)

    # 256 x 256 px at 4 times the scale are 1 GB beside the model's own
    _, faults = run([slide_path], tmp_path / "a", make_model=lambda: LargeModel(1), tile_px=250)
    assert faults == {}
    _, faults = run([slide_path], tmp_path / "b", make_model=lambda: LargeModel(8), tile_px=250)
    assert re.search(r"about \d+ GB of memory: 8 tiles .* there are 2 GB", faults["disks.png"])


def test_unfinished_run_is_not_overwritten(slide_path, tmp_path):
    # Late enough that the first tile is done, in whatever order threads come to the model
    model = FailingModel(17, InputError("no more"))
    run([slide_path], tmp_path, make_model=lambda: model)
    with pytest.raises(InputError, match="was not finished"):
        run([slide_path], tmp_path)


def test_run_that_had_not_begun_is_begun_anew(slide_path, tmp_path, whole):
    """A first try that failed at once, for want of an option, is no reason to refuse the second."""
    model = FailingModel(0, InputError("no pixel size"))
    run([slide_path], tmp_path, make_model=lambda: model)
    recorder, _ = run([slide_path], tmp_path, tile_px=256)
    assert recorder.instances["disks.png"] == whole


def test_resume_with_other_settings_is_refused_and_says_which(slide_path, tmp_path):
    run([slide_path], tmp_path, tile_px=256)
    with pytest.raises(InputError, match="tile_px was 256 and is 512"):
        run([slide_path], tmp_path, tile_px=512, resume=True)


def test_resume_with_another_file_of_that_name_is_a_fault(slide_path, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(slide_path.read_bytes())
    run([path], tmp_path / "journals")
    Image.new("RGB", (50, 60), TISSUE_RGB).save(path)
    _, faults = run([path], tmp_path / "journals", resume=True)
    assert "height_px was 1100 and is 60" in faults["a.png"]


def test_fault_of_one_slide_leaves_the_others(slide_path, tmp_path, whole):
    bad, refused, again = (tmp_path / name for name in ("bad.png", "refused.png", "again.png"))
    bad.write_bytes(slide_path.read_bytes()[:1000])
    refused.write_bytes(slide_path.read_bytes())
    again.write_bytes(slide_path.read_bytes())
    recorder, faults = run(
        [bad, slide_path, refused, again],
        tmp_path / "journals",
        recorder=Recorder(fault_of="refused.png"),
    )
    assert list(faults) == ["bad.png", "refused.png"]
    assert recorder.instances == {"disks.png": whole, "again.png": whole}


def test_slide_that_fails_half_way_leaves_the_others(slide_path, tmp_path, whole):
    class FailOnce(ColorModel):
        calls = 0

        def __call__(self, images_rgb, *, mpp):
            self.calls += 1
            if self.calls == 5:
                raise OSError("unreadable")
            return super().__call__(images_rgb, mpp=mpp)

    other = tmp_path / "other.png"
    other.write_bytes(slide_path.read_bytes())
    model = FailOnce()
    recorder, faults = run([slide_path, other], tmp_path / "journals", make_model=lambda: model)
    assert faults == {"disks.png": "unreadable"}
    assert recorder.instances == {"other.png": whole}
    assert model.calls < 35 + 35  # what was left of the first one was not done


def test_full_disk_stops_the_slide_and_names_its_journal(slide_path, tmp_path, monkeypatch):
    def fill_up(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fill_up)
    _, faults = run([slide_path], tmp_path)
    assert "No space left on device" in faults["disks.png"]
    assert str(tmp_path / "disks" / "journal") in faults["disks.png"]


def test_glass_has_no_tiles_and_no_instances(tmp_path):
    path = tmp_path / "glass.png"
    Image.new("RGB", (900, 700), (245, 245, 245)).save(path)
    model = FailingModel(0, AssertionError("called"))
    recorder, faults = run([path], tmp_path / "journals", make_model=lambda: model)
    assert faults == {}
    assert recorder.instances == {"glass.png": []}
    assert recorder.segmented[0].tissue.area_px == 0


def test_regions_count_instances_by_their_middle(slide_path, tmp_path, whole):
    region = shapely.box(200, 100, 700, 900)
    recorder, _ = run([slide_path], tmp_path, regions=region)
    expected = [
        item
        for item in whole
        if region.contains(shapely.Point(item[1] + item[2][1] / 2, item[0] + item[2][0] / 2))
    ]
    found = recorder.instances["disks.png"]
    assert len(expected) > 20
    assert sorted(item[:2] for item in found) == sorted(item[:2] for item in expected)


def test_batches_change_nothing(slide_path, tmp_path, whole):
    class InFours(ColorModel):
        batch_size = 4

        def __call__(self, images_rgb, *, mpp):
            assert 1 <= len(images_rgb) <= 4
            return super().__call__(images_rgb, mpp=mpp)

    recorder, _ = run([slide_path], tmp_path, make_model=InFours)
    assert recorder.instances["disks.png"] == whole


def test_outputs_of_inputs_that_share_a_stem_have_different_names(tmp_path):
    files = {name: tmp_path / name for name in ("a/1.png", "b/1.png", "b/2.svs")}
    assert [item.name for item in name_inputs(files)] == ["a_1.png", "b_1.png", "2"]
    assert [item.file_name for item in name_inputs(files)] == list(files)
