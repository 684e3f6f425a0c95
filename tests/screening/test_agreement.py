"""How far reviewers agree."""

import pytest
from screening_actions import HEIGHT, WIDTH, box_mask, decide

from steatosis_d2.data.coco import annotation_record, image_record, write_coco
from steatosis_d2.errors import InputError
from steatosis_d2.instances.rle import encode_mask
from steatosis_d2.screening.agreement import (
    compare_outlines,
    format_agreement,
    format_outline_agreement,
    measure_agreement,
)
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


def outlines(*of_images):
    """COCO content: for each image a list of (box, what the reviewer made of it)."""
    images, annotations = [], []
    for image_id, labels in enumerate(of_images, 1):
        images.append(image_record(image_id, f"{image_id}.png", height=HEIGHT, width=WIDTH))
        for box, screening in labels:
            record = annotation_record(len(annotations) + 1, image_id, encode_mask(box_mask(*box)))
            crowd = {"iscrowd": int(screening == "rejected"), "screening": screening}
            annotations.append(record | crowd)
    return {"images": images, "annotations": annotations}


ONE, SHIFTED, TWO = (0, 10, 0, 10), (0, 10, 2, 12), (20, 30, 20, 30)


def test_outlines_of_two_reviewers_are_compared_as_instances():
    ann = outlines([(ONE, "accepted"), (TWO, "accepted")], [])
    ben = outlines([(SHIFTED, "accepted"), (TWO, "rejected")], [])
    contents = {"ann": ann, "ben": ben}
    agreement = compare_outlines(contents, "ann", "ben")
    assert (agreement.images, agreement.objects) == (2, (2, 1))
    assert agreement.f1 == pytest.approx(2 / 3)
    assert agreement.pq == pytest.approx(2 / 3 * 80 / 120)
    assert agreement.fat_area_points == pytest.approx(100 * 100 / (HEIGHT * WIDTH) / 2)
    again = compare_outlines(contents, "ben", "ann")
    assert (again.f1, again.pq) == pytest.approx((agreement.f1, agreement.pq))
    assert "ann and ben: 2 images, 2 and 1 objects, F1@0.5 0.667" in format_outline_agreement(
        agreement
    )


def test_images_that_one_has_not_finished_do_not_count():
    ann = outlines([(ONE, "accepted")], [(ONE, "accepted")])
    ben = outlines([(ONE, "accepted")], [(ONE, "accepted"), (TWO, "unreviewed")])
    assert compare_outlines({"a": ann, "b": ben}, "a", "b").images == 1
    with pytest.raises(InputError, match="no image that both have outlined"):
        compare_outlines({"a": outlines([(ONE, "unreviewed")]), "b": ann}, "a", "b")
