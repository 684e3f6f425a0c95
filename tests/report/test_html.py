"""report.html, as its readers and their browsers take it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from steatosis_d2.instances.instance import Instance
from steatosis_d2.measurement.cases import combine_cases
from steatosis_d2.measurement.morphology import measure_instances
from steatosis_d2.measurement.summary import summarise
from steatosis_d2.report import pictures
from steatosis_d2.report.html import format_length, format_number, write_report
from steatosis_d2.slides.pyramid import Slide
from steatosis_d2.slides.tissue import TissueMask

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Tags of a page; fails where they are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def result(file_name="a.svs", *, section="<p>its section</p>", **changes):
    instances = [Instance(np.ones((30, 30), bool), 0, 0, 0.9)]
    table = measure_instances(instances, mpp=0.5).assign(dropped_by="")
    arguments = {
        "category": "droplet",
        "file_name": file_name,
        "shape_px": (1000, 2000),
        "mpp": 0.5,
        "mpp_source": "given",
        "tissue_area_px": 1_000_000,
        "large_diameter_um": 11.3,
        "calibration": None,
    }
    summary = summarise(table, **arguments) | changes
    return {"name": "a", "summary": summary, "parts": [], "section_html": section}


def write(tmp_path, *results, **changes):
    arguments = {
        "category": "droplet",
        "model": {"weights": "starter.pth", "sha256": "ab12"},
        "parameters": {"tile_px": 1024},
        "faults": {},
        "detailed_inputs": 10,
    }
    write_report(tmp_path / "report.html", results, **(arguments | changes))
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_page_needs_nothing_from_outside(tmp_path):
    page = Page(write(tmp_path, result()))
    assert not page.attributes("script") and not page.attributes("link")
    assert all(image["src"].startswith("data:") for image in page.attributes("img"))
    assert all("://" not in link["href"] for link in page.attributes("a"))


def test_file_names_are_shown_and_never_run(tmp_path):
    name = "<script>alert('x')</script>\"&.svs"
    text = write(tmp_path, result(name), faults={name: "<img src=x onerror=alert(1)>"})
    page = Page(text)
    assert page.text.count(name) == 3  # in the summary, over its section, among the faults
    assert not page.attributes("script") and not page.attributes("img")


def test_summary_comes_before_the_sections_it_links_to(tmp_path):
    text = write(tmp_path, result("a.svs"), result("b.svs"))
    page = Page(text)
    assert text.index('id="summary"') < text.index('id="input-1"') < text.index('id="input-2"')
    targets = {attributes.get("id") for _, attributes in page.tags}
    for link in page.attributes("a"):
        if link["href"].startswith("#"):
            assert link["href"][1:] in targets


def test_many_inputs_are_all_in_the_summary_and_the_first_in_detail(tmp_path):
    results = [result(f"{number}.svs") for number in range(30)]
    page = Page(write(tmp_path, *results, detailed_inputs=4))
    assert len(page.attributes("section")) == 4
    assert "29.svs" in page.text
    assert "first 4 of 30 inputs" in page.text


def test_fat_area_is_no_grade(tmp_path):
    text = Page(write(tmp_path, result())).text
    assert "fat area, %" in text and "It is not a steatosis grade" in text
    assert "calibration" not in text


def test_grade_carries_the_name_of_its_calibration(tmp_path):
    page = Page(write(tmp_path, result(grade="S1", grade_calibration="ours.json")))
    assert "S1" in page.text
    assert "calibration file ours.json ; they are not a pathologist's grade" in page.text


def test_intervals_stand_in_brackets(tmp_path):
    ends = {"fat_area_percent_low": 0.1, "fat_area_percent_high": 0.4}
    assert "(0.1 to 0.4)" in Page(write(tmp_path, result(**ends))).text


def test_parts_stand_under_their_slide(tmp_path):
    whole = result("a.svs")
    part = whole["summary"] | {"region": "<piece> 1", "droplets": 77}
    text = write(tmp_path, whole | {"parts": [part]})
    assert text.index("a.svs") < text.index("&lt;piece&gt; 1") < text.index("77")


def test_cases_have_a_table(tmp_path):
    cases = combine_cases([result(case="L07")["summary"]], category="droplet")
    page = Page(write(tmp_path, result(), cases=cases))
    assert "L07" in page.text and "each counts by its tissue" in page.text


def test_what_the_figures_rest_on_is_stated(tmp_path):
    text = Page(write(tmp_path, result())).text
    for expected in ("ab12", "tile_px: 1024", "numpy", "Python", "arXiv:1911.07088"):
        assert expected in text
    assert "not a medical device" in text


def test_nuclei_are_called_nuclei(tmp_path):
    table = measure_instances([], mpp=0.5).assign(dropped_by="")
    summary = summarise(
        table,
        category="nucleus",
        file_name="a.svs",
        shape_px=(10, 10),
        mpp=0.5,
        tissue_area_px=100,
        large_diameter_um=11.3,
        calibration=None,
    )
    results = [{"name": "a", "summary": summary, "parts": [], "section_html": ""}]
    text = Page(write(tmp_path, *results, category="nucleus")).text
    assert "nuclei" in text
    assert not re.search(r"\bfat\b|droplet", text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (1234567, "1,234,567"),
        (1234.5, "1,234"),
        (999.6, "1,000"),
        (0.5, "0.5"),
        (12.345, "12.3"),
    ],
)
def test_numbers_are_written_for_reading(value, text):
    assert format_number(value) == text


def test_lengths_are_in_mm_um_or_px():
    assert [format_length(4000, mpp) for mpp in (0.5, 0.05, None)] == ["2 mm", "200 µm", "4,000 px"]


def disks_table(*diameters, scores=None, mpp=1.0):
    instances = []
    for number, diameter in enumerate(diameters):
        y, x = np.mgrid[:diameter, :diameter] - (diameter - 1) / 2
        score = scores[number] if scores else 0.9
        instances.append(Instance(x**2 + y**2 <= diameter**2 / 4, 0, 200 * number, score))
    return measure_instances(instances, mpp=mpp)


def test_gallery_shows_typical_largest_and_doubtful_ones_once():
    table = disks_table(10, 10, 10, 50, 12, 3, scores=[0.9, 0.9, 0.9, 0.95, 0.3, 0.8])
    gallery = pictures.choose_gallery(table, size=1)
    assert [*gallery.values()] == [[0], [3], [4]]
    everything = pictures.choose_gallery(table, size=4)
    rows = [row for rows in everything.values() for row in rows]
    assert sorted(rows) == [0, 1, 2, 3, 4, 5]


def test_gallery_of_nothing_is_empty():
    assert not any(pictures.choose_gallery(disks_table(), size=6).values())


def test_histogram_counts_every_instance_in_round_bins():
    # squares: the equivalent diameter is 1.13 times the side
    squares = [Instance(np.ones((side, side), bool), 0, 0, 0.9) for side in (4, 6, 7, 26)]
    histogram = pictures.count_diameters(measure_instances(squares, mpp=1.0))
    assert (histogram.bin_width, histogram.unit) == (1, "µm")
    assert np.flatnonzero(histogram.counts).tolist() == [4, 6, 7, 29]
    assert pictures.count_diameters(measure_instances(squares, mpp=None)).unit == "px"


PINK = (200, 120, 170)


class PinkSlide(Slide):
    """Tissue wherever one looks."""

    def __init__(self, side_px):
        super().__init__(Path("pink.png"), sizes=[(side_px, side_px)], mpp=0.5)

    def _read_level(self, level, left, top, width, height):
        return np.full((height, width, 3), PINK, np.uint8)


def heat_map(instances, *, tissue_columns=128):
    slide = PinkSlide(1280)
    mask = np.zeros((128, 128), bool)
    mask[:, :tissue_columns] = True
    return pictures.draw_heat_map(
        slide.thumbnail(640),
        measure_instances(instances, mpp=0.5),
        slide,
        TissueMask(mask, 10, 1280, 1280),
    )


def squares_at(columns, rows=range(0, 1280, 40)):
    """A square of 20 px in every cell of 40 px: a quarter of the area."""
    mask = np.ones((20, 20), bool)
    return [Instance(mask, top, left, 0.9) for top in rows for left in columns]


def test_heat_map_shows_the_share_of_tissue_that_is_covered():
    heat = heat_map(squares_at(range(0, 640, 40)))
    assert heat.limit_percent == 40  # the next round number above 25
    green = heat.picture_rgb[..., 1].astype(int)  # rises all along the colour scale
    assert green[320, 100] > green[320, 320] > green[320, 540]


def test_heat_map_is_of_the_tissue_not_of_the_glass():
    """Half of the smoothing window lies on glass; the share of tissue is the same there."""
    heat = heat_map(squares_at(range(0, 640, 40)), tissue_columns=64)
    assert abs(int(heat.picture_rgb[320, 300, 1]) - int(heat.picture_rgb[320, 160, 1])) < 12
    assert len(set(heat.picture_rgb[320, 500].tolist())) == 1  # glass stays grey


def test_heat_map_averages_over_more_than_a_droplet():
    assert heat_map(squares_at([600], [600])).smoothing_px == pytest.approx(1280 / 30)
    large = [Instance(np.ones((400, 400), bool), 0, 0, 0.9)]
    assert heat_map(large).smoothing_px == 400


def test_gallery_picture_is_outlined_and_white_beyond_the_slide():
    y, x = np.ogrid[-20:21, -20:21]
    picture_rgb = pictures.draw_gallery_picture(
        PinkSlide(1280), Instance(x**2 + y**2 <= 400, -1, 600, 0.9)
    )
    assert picture_rgb.shape == (112, 112, 3)
    assert (picture_rgb[:10] == 255).all()
    assert tuple(picture_rgb[56, 56]) == PINK
    outlined = (picture_rgb == (0, 140, 60)).all(axis=-1)
    # 41 px of 70 are 66 px of 112
    assert np.ptp(outlined.any(axis=0).nonzero()[0]) == pytest.approx(66, abs=2)
