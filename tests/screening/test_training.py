"""What training gets from screened labels."""

import json

import pytest
from screening_actions import decide

from steatosis_d2.screening.labels import read_labels
from steatosis_d2.screening.training import write_screened


def screened(screening, path, reviewer=None, **options):
    label_file = screening.label_file
    labels = {i: screening.state(i).screened_labels(reviewer) for i in label_file.images}
    counts = write_screened(path, label_file, labels, **options)
    return counts, json.loads(path.read_text())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {1: ("accepted", 0), 2: ("rejected", 1), 3: ("unreviewed", 0)}),
        ({"rejected": "drop"}, {1: ("accepted", 0), 3: ("unreviewed", 0)}),
        ({"unreviewed": "drop"}, {1: ("accepted", 0), 2: ("rejected", 1)}),
        (
            {"unreviewed": "ignore"},
            {1: ("accepted", 0), 2: ("rejected", 1), 3: ("unreviewed", 1)},
        ),
    ],
)
def test_accepted_rejected_and_unreviewed_are_told_apart(tmp_path, screening, options, expected):
    decide(screening, "accept", 1)
    decide(screening, "reject", 2)
    counts, content = screened(screening, tmp_path / "out.json", **options)
    assert {a["id"]: (a["screening"], a["iscrowd"]) for a in content["annotations"]} == expected
    assert dict(counts) == {"accepted": 1, "rejected": 1, "unreviewed": 1}
    assert [image["file_name"] for image in content["images"]] == ["1.png", "2.png"]


def test_labels_nobody_touched_keep_every_byte_of_their_masks(tmp_path, screening):
    before = json.loads(screening.label_file.path.read_text())["annotations"]
    _, content = screened(screening, tmp_path / "out.json")
    assert content["annotations"] == [a | {"screening": "unreviewed"} for a in before]


def test_output_can_be_screened_again(tmp_path, screening):
    decide(screening, "reject", 2)
    decide(screening, "split", 3, points_xy=[(26, 15), (26, 40)])
    screened(screening, tmp_path / "out.json")
    again = read_labels(tmp_path / "out.json")
    assert {label.id: label.screening for label in again.labels[1]} == {
        1: "unreviewed",
        2: "rejected",
        4: "accepted",
        5: "accepted",
    }


def test_latest_verdict_counts_unless_a_reviewer_is_named(tmp_path, screening):
    decide(screening, "accept", 1)
    decide(screening, "reject", 1, reviewer="Ben")
    state = screening.state(1)
    assert [state.screening(1, name) for name in (None, "Ann", "Ben", "Eve")] == [
        "rejected",
        "accepted",
        "rejected",
        "unreviewed",
    ]
