"""Rules that say which instances count."""

import numpy as np
import pytest

from steatosis_d2.errors import InputError
from steatosis_d2.instances.instance import Instance
from steatosis_d2.measurement.filters import check_units, find_reasons, parse_rules
from steatosis_d2.measurement.morphology import measure_instances


def squares(*sides, mpp=None):
    """Table of squares with the given sides, in px."""
    instances = [
        Instance(np.ones((side, side), bool), 0, 100 * number, 0.5)
        for number, side in enumerate(sides)
    ]
    return measure_instances(instances, mpp=mpp)


def reasons(table, *texts):
    return find_reasons(table, parse_rules(texts)).tolist()


def test_absolute_rule():
    assert reasons(squares(2, 3, 4), "area_px>=9") == ["area_px>=9", "", ""]


def test_rule_in_um_reads_the_column_in_um():
    assert reasons(squares(2, 4, mpp=0.5), "area_um2>3") == ["area_um2>3", ""]


@pytest.mark.parametrize(
    ("rule", "kept"),
    [("width_px>=3", [3, 4]), ("width_px>3", [4]), ("width_px<=3", [2, 3]), ("width_px<3", [2])],
)
def test_comparisons(rule, kept):
    table = squares(2, 3, 4)
    found = find_reasons(table, parse_rules([rule]))
    assert table["width_px"][found == ""].tolist() == kept


@pytest.mark.parametrize("mpp", [None, 0.25])
def test_relative_rule_needs_no_unit(mpp):
    # areas 4, 4, 4, 100: mean 28, median 4
    table = squares(2, 2, 2, 10, mpp=mpp)
    assert reasons(table, "area<=2*mean") == ["", "", "", "area<=2*mean"]
    assert reasons(table, "area >= 2 * median")[3] == ""


def test_first_rule_that_fails_is_the_reason():
    table = squares(2, 10)
    assert reasons(table, "width_px>=5", "area_px>=50") == ["width_px>=5", ""]
    assert reasons(table, "area_px>=50,width_px>=5") == ["area_px>=50", ""]


def test_paper_keeps_what_is_near_the_mean():
    # areas 9 x 10, 1 and 3600 px: mean 413
    table = squares(*[10] * 9, 1, 60)
    found = reasons(table, "paper")
    assert found[:9] == [""] * 9
    assert found[9:] == ["perimeter>=0.5*mean", "area<=6*mean"]


def test_no_rules_keep_everything():
    assert reasons(squares(1, 50), "none") == ["", ""]
    assert reasons(squares(1, 50)) == ["", ""]


def test_empty_table_has_no_reasons():
    assert reasons(squares(), "paper", "area_px>=5") == []


@pytest.mark.parametrize(
    "text",
    [
        "papers",
        "",
        "area_um2",
        "area_um2>=",
        "area_um2==5",
        "size>=5",
        "area_um2>=x",
        "area_um2>=5*mode",
        "area_um2>=5mean",
        "mean*5<=area_um2",
        "nearest_neighbour_um>=5",
        "area_um2>=5;width_px>=3",
        "__class__>=5",
    ],
)
def test_what_is_no_rule_is_an_error_with_the_columns(text):
    with pytest.raises(InputError, match="is not understood") as caught:
        parse_rules([text])
    assert f"'{text}'" in str(caught.value) or "'area_um2>=5;" in str(caught.value)
    assert "area_um2, area_px, perimeter_um" in str(caught.value)


def test_number_with_two_points_is_an_error():
    with pytest.raises(InputError, match=r"'1\.2\.3' is not a number"):
        parse_rules(["score>=1.2.3"])


def test_absolute_rule_without_a_unit_is_an_error():
    with pytest.raises(InputError, match="area>=5' has no unit; write area_um2 or area_px"):
        parse_rules(["area>=5"])


def test_rule_in_um_without_a_pixel_size_is_an_error():
    rules = parse_rules(["perimeter_um>=5"])
    with pytest.raises(InputError, match=r"'a\.svs' has no pixel size .* 'perimeter_um>=5'"):
        check_units(rules, mpp=None, path="a.svs")


def test_rule_in_px_with_a_pixel_size_is_an_error():
    rules = parse_rules(["area_px>=5"])
    with pytest.raises(InputError, match=r"'a\.svs' has a pixel size \(0\.25 um/px\)"):
        check_units(rules, mpp=0.25, path="a.svs")


@pytest.mark.parametrize("mpp", [None, 0.25])
def test_rules_without_a_unit_fit_every_input(mpp):
    check_units(parse_rules(["paper", "score>=0.5", "width_px>=3"]), mpp=mpp, path="a.svs")
