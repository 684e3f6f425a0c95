"""How far reviewers agree."""

import pytest
from screening_actions import HEIGHT, WIDTH, box_mask, decide

from steatosis_d2.data.coco import annotation_record, image_record, write_coco
from steatosis_d2.instances.rle import encode_mask
from steatosis_d2.screening.agreement import format_agreement, measure_agreement
from steatosis_d2.screening.labels import read_labels
from steatosis_d2.screening.log import DecisionLog
from steatosis_d2.screening.session import Screening


def judge(screening, reviewer, **actions):
    for action, label_ids in actions.items():
        decide(screening, action, *label_ids, reviewer=reviewer)


def test_kappa_of_a_known_table(tmp_path):
    """Both accept 20, both reject 15, 5 and 10 apart: observed 0.7, by chance 0.5, kappa 0.4."""
    labels = [annotation_record(i, 1, encode_mask(box_mask(0, 2, i, i + 1))) for i in range(1, 51)]
    image = image_record(1, "1.png", height=HEIGHT, width=WIDTH)
    write_coco(tmp_path / "a.json", [image], labels, category="droplet")
    label_file = read_labels(tmp_path / "a.json")
    screening = Screening(label_file, DecisionLog(tmp_path / "a.sqlite", label_file, create=True))
    judge(screening, "Ann", accept=range(1, 26), reject=range(26, 51))
    judge(screening, "Ben", accept=[*range(1, 21), *range(26, 36)], reject=range(36, 51))
    judge(screening, "Ben", reject=range(21, 26))
    [agreement] = measure_agreement([screening.state(1)])
    assert agreement.n_labels == 50
    assert agreement.observed == pytest.approx(0.7)
    assert agreement.kappa == pytest.approx(0.4)
    assert format_agreement(agreement) == (
        "Ann and Ben: 50 labels judged by both, 70.0% alike, Cohen's kappa 0.400"
    )


def test_kappa_of_one_verdict_throughout_is_not_defined(screening):
    judge(screening, "Ann", accept=[1, 2])
    judge(screening, "Ben", accept=[1, 2, 3])
    [agreement] = measure_agreement([screening.state(1)])
    assert (agreement.n_labels, agreement.observed, agreement.kappa) == (2, 1, None)
    assert "not defined" in format_agreement(agreement)


def test_an_edit_is_a_verdict_on_what_it_replaces(screening):
    judge(screening, "Ann", accept=[1, 3])
    judge(screening, "Ben", accept=[3])
    decide(screening, "redraw", 1, reviewer="Ben", points_xy=[(0, 0), (9, 0), (9, 9)])
    [agreement] = measure_agreement([screening.state(1)])
    assert agreement.pairs == {("accepted", "edited"): 1, ("accepted", "accepted"): 1}


def test_reviewers_without_common_labels_have_no_agreement(screening):
    judge(screening, "Ann", accept=[1])
    judge(screening, "Ben", accept=[2])
    assert measure_agreement([screening.state(1)]) == []
