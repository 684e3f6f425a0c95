"""Decisions on labels, by one reviewer and by several at once."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from screening_actions import (
    BOXES,
    box_mask,
    decide,
    mask_of,
    seen,
    undo,
    verdicts,
    write_labels_file,
)

from steatosis_d2.instances.rle import encode_mask
from steatosis_d2.screening.labels import read_labels
from steatosis_d2.screening.log import DecisionLog
from steatosis_d2.screening.session import Conflict, Screening, Unusable


def test_labels_are_unreviewed_at_first(screening):
    assert verdicts(screening) == {1: "unreviewed", 2: "unreviewed", 3: "unreviewed"}
    assert {i: record["certainty"] for i, record in seen(screening).items()} == {
        1: 0.9,
        2: 0.2,
        3: 0.5,
    }


def test_outline_shown_is_that_of_the_pixels(screening):
    assert seen(screening)[1]["path"] == "M4 4h10v10h-10z"
    assert seen(screening)[1]["box"] == [4, 4, 10, 10]


def test_labels_without_scores_are_ranked_by_form(tmp_path):
    path = write_labels_file(tmp_path / "a.json", scores=(None, None, None))
    bent = box_mask(*BOXES[1])
    bent[4:10, 4:10] = False
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = encode_mask(bent)
    path.write_text(json.dumps(content))
    labels = read_labels(path)
    screening = Screening(labels, DecisionLog(tmp_path / "a.sqlite", labels, create=True))
    assert screening.ranked_by == "solidity"
    certainty = {i: record["certainty"] for i, record in seen(screening).items()}
    assert certainty[1] < certainty[2] == certainty[3] == 1


def test_decisions_survive_a_restart(screening, open_screening):
    decide(screening, "accept", 1, 3)
    decide(screening, "reject", 2)
    assert verdicts(open_screening()) == {1: "accepted", 2: "rejected", 3: "accepted"}


def test_merge_replaces_both_labels_for_everyone(screening):
    decide(screening, "merge", 1, 2)
    assert set(seen(screening, "Ben")) == {3, 4}
    assert np.array_equal(mask_of(screening, 4), box_mask(4, 14, 4, 24))
    assert verdicts(screening)[4] == "accepted"
    assert verdicts(screening, "Ben")[4] == "unreviewed"


def test_split_keeps_every_pixel(screening):
    decide(screening, "split", 3, points_xy=[(26, 15), (26, 40)])
    assert set(seen(screening)) == {1, 2, 4, 5}
    assert np.array_equal(mask_of(screening, 4) ^ mask_of(screening, 5), box_mask(*BOXES[3]))


def test_redraw_and_draw(screening):
    decide(screening, "redraw", 1, points_xy=[(0, 0), (6, 0), (6, 6), (0, 6)])
    decide(screening, "draw", points_xy=[(50, 30), (60, 30), (60, 40), (50, 40)])
    assert set(seen(screening)) == {2, 3, 4, 5}
    assert np.array_equal(mask_of(screening, 4), box_mask(0, 6, 0, 6))
    assert np.array_equal(mask_of(screening, 5), box_mask(30, 40, 50, 60))


def test_undo_goes_back_step_by_step(screening, open_screening):
    before = seen(screening)
    decide(screening, "reject", 2)
    decide(screening, "merge", 1, 2)
    undo(screening)
    assert verdicts(screening) == {1: "unreviewed", 2: "rejected", 3: "unreviewed"}
    undo(open_screening())
    assert seen(screening) == before
    with pytest.raises(Unusable, match="nothing left to undo"):
        screening.decide(1, "Ann", "undo", undoes=1)


def test_ids_are_never_used_twice(screening):
    decide(screening, "merge", 1, 2)
    undo(screening)
    decide(screening, "merge", 2, 3)
    assert set(seen(screening)) == {1, 5}


def test_undo_takes_back_ones_own_decision_only(screening):
    decide(screening, "reject", 1)
    decide(screening, "reject", 2, reviewer="Ben")
    undo(screening)
    assert verdicts(screening, "Ben")[2] == "rejected"
    assert verdicts(screening)[1] == "unreviewed"


def test_edit_that_another_has_built_on_is_not_undone(screening):
    decide(screening, "merge", 1, 2)
    decide(screening, "merge", 3, 4, reviewer="Ben")
    with pytest.raises(Unusable, match="Ben has worked with this outline"):
        undo(screening)
    assert set(seen(screening)) == {5}


@pytest.mark.parametrize(
    ("action", "label_ids", "points_xy", "message"),
    [
        ("merge", [1], [], "merge takes 2 or more labels; got 1"),
        ("split", [1, 2], [(0, 0), (9, 9)], "split takes 1 labels; got 2"),
        ("split", [1], [(0, 0)], "two points"),
        ("split", [1], [(50, 0), (50, 9)], "right across"),
        ("redraw", [1], [(0, 0), (9, 9)], "encloses no pixel"),
        ("draw", [], [(70, 0), (79, 0), (75, 9)], "encloses no pixel"),
        ("draw", [1], [(0, 0), (9, 0), (9, 9)], "draw takes 0 labels"),
        ("accept", [], [], "accept takes 1 or more labels; got 0"),
    ],
)
def test_what_cannot_be_done_changes_nothing(screening, action, label_ids, points_xy, message):
    before = seen(screening)
    with pytest.raises(Unusable, match=message):
        decide(screening, action, *label_ids, points_xy=points_xy)
    assert seen(screening) == before
    assert screening.log.read(1) == []


def test_verdict_on_an_outline_that_is_no_more_is_a_conflict(screening):
    decide(screening, "merge", 1, 2, reviewer="Ben")
    with pytest.raises(Conflict, match="Ben has changed this outline"):
        screening.decide(1, "Ann", "accept", revisions={1: 0})


def test_same_reviewer_in_two_browsers_does_not_overwrite(screening):
    decide(screening, "accept", 1)
    with pytest.raises(Conflict, match="Ann has judged this label elsewhere"):
        screening.decide(1, "Ann", "reject", revisions={1: 0})
    assert verdicts(screening)[1] == "accepted"


def test_undo_of_what_is_not_the_last_is_a_conflict(screening):
    decide(screening, "accept", 1)
    stale = screening.describe(1, "Ann")["undoable"]
    decide(screening, "accept", 2)
    with pytest.raises(Conflict, match="decided elsewhere"):
        screening.decide(1, "Ann", "undo", undoes=stale)


def test_reviewers_on_different_labels_do_not_disturb_each_other(screening):
    screening.decide(1, "Ann", "accept", revisions={1: 0})
    screening.decide(1, "Ben", "merge", revisions={2: 0, 3: 0})
    screening.decide(1, "Ann", "reject", revisions={1: 1})
    assert verdicts(screening) == {1: "rejected", 4: "unreviewed"}


def test_verdicts_of_others_are_not_shown(screening):
    decide(screening, "reject", 1, reviewer="Ben")
    assert verdicts(screening)[1] == "unreviewed"


def test_changes_since_a_decision_name_what_others_did(screening):
    decide(screening, "accept", 1)
    decide(screening, "merge", 2, 3, reviewer="Ben")
    changes = screening.describe(1, "Ann", since=1)
    assert [record["id"] for record in changes["labels"]] == [4]
    assert (changes["gone"], changes["last"], changes["undoable"]) == ([2, 3], 2, 1)
    undo(screening, "Ben")
    changes = screening.describe(1, "Ann", since=2)
    assert [record["id"] for record in changes["labels"]] == [2, 3]
    assert changes["gone"] == [4]


def test_progress_counts_ones_own_verdicts(screening):
    decide(screening, "accept", 1, 2)
    decide(screening, "reject", 3, reviewer="Ben")
    first, second = screening.list_images("Ann")
    assert (first["accepted"], first["rejected"], first["unreviewed"]) == (2, 0, 1)
    assert (second["file_name"], second["unreviewed"]) == ("2.png", 0)


DECIDE_20_TIMES = """
import sys
from steatosis_d2.screening.labels import read_labels
from steatosis_d2.screening.log import DecisionLog
from steatosis_d2.screening.session import Screening

labels, decisions, reviewer = sys.argv[1:]
label_file = read_labels(labels)
screening = Screening(label_file, DecisionLog(decisions, label_file, create=True))
for _ in range(20):
    first = screening.describe(1, reviewer)["labels"][0]
    screening.decide(1, reviewer, "accept", revisions={first["id"]: first["revision"]})
"""


def test_processes_that_decide_at_once_lose_nothing(tmp_path, label_file):
    """They make the file at once as well."""
    path = tmp_path / "decisions.sqlite"
    command = [sys.executable, "-c", DECIDE_20_TIMES, label_file.path, path]
    processes = [subprocess.Popen([*command, name]) for name in ("Ann", "Ben")]
    assert [process.wait(120) for process in processes] == [0, 0]
    decisions = DecisionLog(path, label_file).read(1)
    assert sorted(decision.reviewer for decision in decisions) == ["Ann"] * 20 + ["Ben"] * 20


@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_undoing_everything_gives_the_labels_of_the_file(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    label_file = read_labels(write_labels_file(folder / "labels.json"))
    screening = Screening(label_file, DecisionLog(folder / "d.sqlite", label_file, create=True))
    start = seen(screening)
    n_decisions = 0
    for _ in range(data.draw(st.integers(1, 6))):
        live = sorted(seen(screening))
        action = data.draw(st.sampled_from(["accept", "reject", "merge", "split", "draw"]))
        chosen = data.draw(st.lists(st.sampled_from(live), unique=True, max_size=2))
        points = [(26, 0), (26, 50), (2, 30)]
        try:
            decide(screening, action, *chosen, points_xy=points)
            n_decisions += 1
        except Unusable:
            continue
    for _ in range(n_decisions):
        undo(screening)
    assert seen(screening) == start
