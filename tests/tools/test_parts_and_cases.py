"""Rows of regions, pieces and cases, as `segment` writes them."""

import csv
import json

import cv2
import numpy as np
import pytest
import shapely
from PIL import Image

from steatosis_d2 import segment
from steatosis_d2.data.synthetic import random_biopsy
from steatosis_d2.data.synthetic.layout import CORE_PITCH, Anatomy
from steatosis_d2.data.synthetic.liver import SyntheticLiver
from steatosis_d2.errors import InputError

MPP = 0.5
SHARES = (0.02, 0.10, 0.30)
WIDTH_UM, LENGTH_UM = 200.0, 450.0
PITCH_PX = round(CORE_PITCH * WIDTH_UM / MPP)
BLURRED_PX = 450


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """
    Three upright cores side by side on glass, and the share of each that is fat, in percent.

    The lower end of the first is out of focus.
    """
    look = random_biopsy(3).liver.look
    cores, percent = [], []
    for number, share in enumerate(SHARES):
        anatomy = Anatomy(
            seed=number,
            fat_fraction=share,
            tear_density=0,
            vessel_density=0,
            core_width_um=WIDTH_UM,
            core_length_um=LENGTH_UM,
        )
        length_px = round((LENGTH_UM + WIDTH_UM) / MPP)
        drawn = SyntheticLiver(anatomy, look, mpp=MPP).render(
            top=0, left=0, height=PITCH_PX, width=length_px
        )
        cores.append(drawn.image_rgb.swapaxes(0, 1))
        percent.append(100 * (drawn.labels > 0).sum() / (WIDTH_UM * LENGTH_UM / MPP**2))
    path = tmp_path_factory.mktemp("cores") / "L07_1.png"
    blurred_from = cores[0].shape[0] - BLURRED_PX
    cores[0][blurred_from:] = cv2.GaussianBlur(cores[0], (0, 0), 4 / MPP)[blurred_from:]
    Image.fromarray(np.concatenate(cores, axis=1)).save(path)
    return path, percent


@pytest.fixture(scope="module")
def by_piece(slide, tmp_path_factory):
    """The folder and the rows of a run with `--by-piece`, two slides of a case."""
    path, _ = slide
    second = path.with_name("L07_2.png")
    Image.fromarray(np.asarray(Image.open(path))[:, :PITCH_PX]).save(second)
    folder = tmp_path_factory.mktemp("out")
    results = segment(
        [path, second],
        folder,
        mpp=MPP,
        by_piece=True,
        case_pattern="(.+)_",
        size_bins_um2=(1, 100),
    )
    with (folder / "summary.csv").open() as file:
        return folder, list(csv.DictReader(file)), results


def test_each_core_has_a_row(slide, by_piece):
    _, percent = slide
    _, rows, results = by_piece
    pieces = [row for row in rows if row["file"] == "L07_1.png" and row["region"]]
    assert [row["region"] for row in pieces] == ["piece 1", "piece 2", "piece 3"]
    found = [float(row["fat_area_percent"]) for row in pieces]
    print("fat area of three cores, found and true, in percent:", found, percent)
    assert found == pytest.approx(percent, rel=0.4)  # as far as the network sees the fat
    core = (results[0].table["centroid_x_px"] // PITCH_PX).astype(int)
    assert [int(row["droplets"]) for row in pieces] == core.value_counts().sort_index().tolist()
    [whole] = [row for row in rows if row["file"] == "L07_1.png" and not row["region"]]
    assert int(whole["droplets"]) == sum(int(row["droplets"]) for row in pieces)
    assert float(whole["tissue_area_px"]) == sum(float(row["tissue_area_px"]) for row in pieces)
    assert results[0].parts[1]["fat_area_percent"] == float(pieces[1]["fat_area_percent"])


def test_a_blurred_corner_is_named_and_left_out(by_piece):
    folder, rows, _ = by_piece
    whole, first, *others = (row for row in rows if row["file"] == "L07_1.png")
    assert float(first["out_of_focus_percent"]) == pytest.approx(25, abs=10)
    assert all(float(row["out_of_focus_percent"]) == 0 for row in others)
    assert 0 < float(whole["out_of_focus_percent"]) < float(first["out_of_focus_percent"])
    page = (folder / "report.html").read_text()
    assert "out of focus" in page
    assert "% of tissue, left out" in page


def test_so_little_tissue_has_no_interval(by_piece):
    _, rows, _ = by_piece
    assert all(row["fat_area_percent_low"] == row["fat_area_percent_high"] == "" for row in rows)


def test_bins_of_size_add_up(by_piece):
    _, rows, _ = by_piece
    bins = ("0_to_1_um2", "1_to_100_um2", "from_100_um2")
    assert sum(int(rows[0][f"droplets_{name}"]) for name in bins) == int(rows[0]["droplets"])
    total = sum(float(rows[0][f"fat_area_percent_{name}"]) for name in bins)
    assert total == pytest.approx(float(rows[0]["fat_area_percent"]), rel=1e-4)
    assert float(rows[0]["fat_area_percent_from_100_um2"]) == pytest.approx(
        float(rows[0]["large_droplet_area_percent"]), rel=0.02
    )


def test_a_case_is_the_sum_of_its_slides(by_piece):
    folder, rows, _ = by_piece
    slides = [row for row in rows if not row["region"]]
    with (folder / "cases.csv").open() as file:
        [case] = csv.DictReader(file)
    assert (case["case"], case["slides"]) == ("L07", "2")
    fat, tissue = (
        sum(float(row[f"{what}_area_mm2"]) for row in slides) for what in ("fat", "tissue")
    )
    assert float(case["fat_area_percent"]) == pytest.approx(100 * fat / tissue, rel=1e-4)
    assert int(case["droplets"]) == sum(int(row["droplets"]) for row in slides)


def test_the_report_shows_parts_and_cases(by_piece):
    folder, _, _ = by_piece
    page = (folder / "report.html").read_text()
    for expected in ("piece 3", "<h2>Cases</h2>", "L07"):
        assert expected in page


def test_regions_have_rows_by_their_names(slide, tmp_path):
    path, _ = slide
    cores = [
        shapely.box(number * PITCH_PX, 0, (number + 1) * PITCH_PX, LENGTH_UM / MPP)
        for number in range(3)
    ]
    features = [
        {
            "type": "Feature",
            "geometry": json.loads(shapely.to_geojson(geometry)),
            "properties": {"objectType": "annotation", "name": name},
        }
        for name, geometry in (
            ("fatty", cores[2]),
            ("both", shapely.union_all([cores[1], cores[2]])),
        )
    ]
    (tmp_path / "roi.geojson").write_text(json.dumps(features))
    [result] = segment(
        path, tmp_path / "out", mpp=MPP, roi=tmp_path / "roi.geojson", model="clump-split"
    )
    fatty, both = result.parts
    assert (fatty["region"], both["region"]) == ("fatty", "both")
    [alone] = segment(path, mpp=MPP, roi=cores[2], model="clump-split")
    # Its tiles lie elsewhere, so that the classical method sees some borders differently
    assert fatty["fat_area_percent"] == pytest.approx(alone.summary["fat_area_percent"], rel=0.01)
    assert fatty["droplets"] == pytest.approx(alone.summary["droplets"], rel=0.01)
    assert result.summary["droplets"] == both["droplets"] > fatty["droplets"] > 0
    assert both["tissue_area_px"] == pytest.approx(2 * fatty["tissue_area_px"], rel=0.1)


def test_a_pattern_that_finds_nothing_is_refused(slide, tmp_path):
    path, _ = slide
    with pytest.raises(InputError, match="finds no case"):
        segment(path, tmp_path, mpp=MPP, case_pattern="B(.+)")
    with pytest.raises(InputError, match="no regular expression"):
        segment(path, tmp_path, mpp=MPP, case_pattern="(")
    with pytest.raises(InputError, match=r"limits of size are \[100.0, 1.0\]"):
        segment(path, tmp_path, mpp=MPP, size_bins_um2=(100, 1))


def test_glass_has_no_pieces_and_its_case_has_no_fat(tmp_path):
    Image.new("RGB", (400, 300), (240, 240, 240)).save(tmp_path / "L07_1.png")
    folder = tmp_path / "out"
    [result] = segment(
        tmp_path / "L07_1.png",
        folder,
        mpp=MPP,
        model="clump-split",
        by_piece=True,
        case_pattern="(.+)_",
    )
    assert result.parts == []
    with (folder / "cases.csv").open() as file:
        [case] = csv.DictReader(file)
    assert (case["droplets"], case["fat_area_percent"]) == ("0", "")


def test_a_case_says_which_of_its_slides_failed(tmp_path):
    Image.new("RGB", (400, 300), (240, 240, 240)).save(tmp_path / "L07_1.png")
    (tmp_path / "L07_2.png").write_bytes((tmp_path / "L07_1.png").read_bytes()[:200])
    folder = tmp_path / "out"
    segment(tmp_path, folder, mpp=MPP, model="clump-split", case_pattern="(.+)_")
    with (folder / "cases.csv").open() as file:
        [case] = csv.DictReader(file)
    assert (case["slides"], case["failed_slides"], case["failed_files"]) == ("1", "1", "L07_2.png")
    with (folder / "summary.csv").open() as file:
        _, failed = csv.DictReader(file)
    assert (failed["file"], failed["case"], failed["droplets"]) == ("L07_2.png", "L07", "")
    page = (folder / "report.html").read_text()
    assert '<td class="number">1 of 2</td>' in page
    assert "a slide could not be segmented, and the case's figures are of the others" in page


def test_a_resumed_run_keeps_its_cases(slide, tmp_path):
    path, _ = slide
    settings = {"mpp": MPP, "model": "clump-split"}
    segment(path, tmp_path, case_pattern="(.+)_", **settings)
    with pytest.raises(InputError, match="case was 'L07' and is '1'"):
        segment(path, tmp_path, case_pattern="_(.+)", resume=True, **settings)


def test_limits_of_what_is_not_measured_are_refused(slide, tmp_path, caplog):
    path, _ = slide
    limits = tmp_path / "limits.json"
    limits.write_text('{"measure": "pdff", "grades": [{"grade": "0", "below": 1}, {"grade": "1"}]}')
    with pytest.raises(InputError, match="is of 'pdff', which is not measured"):
        segment(path, tmp_path / "a", mpp=MPP, model="clump-split", grade_calibration=limits)
    limits.write_text(
        '{"measure": "large_droplet_area_percent", "model": {"weights_sha256": "x"}, '
        '"grades": [{"grade": "low", "below": 0.5}, {"grade": "high"}]}'
    )
    [result] = segment(path, tmp_path / "b", mpp=MPP, model="clump-split", grade_calibration=limits)
    assert result.summary["grade"] == "high"
    assert "fitted on what another network measured" in caplog.text
