"""Labels under screening: edits, decisions on disk, verdicts, agreement and ranking."""

import json
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from steatosis_d2.data.coco import annotation_record, image_record, write_coco
from steatosis_d2.errors import InputError
from steatosis_d2.evaluation.pairing import pair_images
from steatosis_d2.masks import decode_mask, encode_mask
from steatosis_d2.screening.agreement import format_agreement, measure_agreement
from steatosis_d2.screening.edits import close_outline, fill_outline, merge_masks, split_mask
from steatosis_d2.screening.labels import find_images, read_labels
from steatosis_d2.screening.log import DecisionLog, Entry
from steatosis_d2.screening.ranking import rank_images
from steatosis_d2.screening.screening import Conflict, Screening, Unusable
from steatosis_d2.screening.training import write_screened

HEIGHT, WIDTH = 40, 60
# Rows and columns (first, last + 1) of the labels of image 1, by id.
BOXES = {1: (4, 14, 4, 14), 2: (4, 14, 14, 24), 3: (20, 36, 10, 42)}


def box_mask(top, bottom, left, right):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def write_labels_file(path, *, scores=(0.9, 0.2, 0.5), **changes):
    """Two images; the first has the labels of BOXES, ``changes`` are to the first annotation."""
    images = [image_record(i, f"{i}.png", height=HEIGHT, width=WIDTH) for i in (1, 2)]
    annotations = [
        annotation_record(number, 1, encode_mask(box_mask(*box)), score=score)
        for (number, box), score in zip(BOXES.items(), scores, strict=True)
    ]
    annotations[0] |= changes
    write_coco(path, images, annotations, category="droplet")
    return path


@pytest.fixture
def label_file(tmp_path):
    return read_labels(write_labels_file(tmp_path / "labels.json"))


@pytest.fixture
def open_screening(tmp_path, label_file):
    """A function that opens the decisions anew, as a restarted server does."""
    return lambda: Screening(
        label_file, DecisionLog(tmp_path / "decisions.sqlite", label_file, create=True)
    )


@pytest.fixture
def screening(open_screening):
    return open_screening()


def seen(screening, reviewer="Ann", **options):
    """What the page knows of image 1: id -> record."""
    return {record["id"]: record for record in screening.describe(1, reviewer, **options)["labels"]}


def decide(screening, action, *label_ids, reviewer="Ann", **options):
    """Decide with what the reviewer would see just now."""
    known = seen(screening, reviewer)
    revisions = {label_id: known[label_id]["revision"] for label_id in label_ids}
    screening.decide(1, reviewer, action, revisions=revisions, **options)


def undo(screening, reviewer="Ann"):
    number = screening.describe(1, reviewer)["undoable"]
    screening.decide(1, reviewer, "undo", undoes=number)


def mask_of(screening, label_id):
    return decode_mask(screening.state(1).labels[label_id].rle)


def verdicts(screening, reviewer="Ann"):
    return {label_id: record["verdict"] for label_id, record in seen(screening, reviewer).items()}


# Edits of outlines


def test_merged_mask_is_the_union():
    masks = [box_mask(*BOXES[1]), box_mask(*BOXES[3])]
    merged = merge_masks([encode_mask(mask) for mask in masks])
    assert np.array_equal(decode_mask(merged), masks[0] | masks[1])
    assert isinstance(merged["counts"], str)


@pytest.mark.parametrize(
    "line", [[(26, 15), (26, 40)], [(5, 28), (50, 28)], [(5, 18), (50, 38)], [(26, 1e6), (26, 0)]]
)
def test_line_across_splits_in_two_without_loss(line):
    whole = box_mask(*BOXES[3])
    parts = [decode_mask(part) for part in split_mask(encode_mask(whole), line)]
    assert len(parts) == 2
    assert np.array_equal(parts[0] ^ parts[1], whole), "each pixel is in exactly one part"
    assert parts[0].sum() >= parts[1].sum() > whole.sum() / 4


def test_bent_line_splits_where_it_was_drawn():
    whole = box_mask(*BOXES[3])
    line = [(18, 10), (18, 28), (34, 28), (34, 10)]
    inner = decode_mask(split_mask(encode_mask(whole), line)[1])
    assert not inner[whole & (np.arange(HEIGHT)[:, None] > 29)].any()
    assert inner[20:27, 20:33].all()


@pytest.mark.parametrize("line", [[(0, 0), (59, 0)], [(20, 25), (30, 25)], [(26, 15), (26, 28)]])
def test_line_that_does_not_cross_is_refused(line):
    with pytest.raises(ValueError, match="draw it right across"):
        split_mask(encode_mask(box_mask(*BOXES[3])), line)


def test_line_along_a_ragged_edge_makes_no_splinters():
    """A line beside a comb's teeth once cut each of them off as a label of its own."""
    comb = box_mask(10, 30, 10, 40)
    comb[30, 10:40:2] = True
    with pytest.raises(ValueError, match="right across"):
        split_mask(encode_mask(comb), [(5, 29.5), (50, 29.5)])


@settings(deadline=None)
@given(
    mask=hnp.arrays(bool, (9, 11)),
    line=st.lists(st.tuples(st.floats(-5, 15), st.floats(-5, 15)), min_size=2, max_size=4),
)
def test_parts_of_any_mask_are_the_mask(mask, line):
    mask[4, 4] = True
    try:
        parts = split_mask(encode_mask(mask), line)
    except ValueError:
        return
    total = sum(decode_mask(part).astype(int) for part in parts)
    assert len(parts) > 1
    assert np.array_equal(total, mask.astype(int))


def test_outline_is_filled_and_cut_at_the_image():
    rle = fill_outline(shapely.box(50, -1e9, 1e9, 3), height=HEIGHT, width=WIDTH)
    assert np.array_equal(decode_mask(rle), box_mask(0, 3, 50, 60))


def test_outline_that_crosses_itself_is_mended():
    bow_tie = shapely.Polygon([(0, 0), (20, 20), (20, 0), (0, 20)])
    rle = fill_outline(bow_tie, height=HEIGHT, width=WIDTH)
    assert coco_mask.area(rle) == pytest.approx(200, abs=25)


def test_outline_drawn_past_its_beginning_has_no_hole():
    """Whoever draws round a droplet overshoots; the overlap once became a hole."""
    past = [(5, 5), (25, 5), (25, 25), (5, 25), (5, 2), (12, 2), (12, 12), (2, 12), (2, 5)]
    rle = fill_outline(close_outline(past), height=HEIGHT, width=WIDTH)
    assert decode_mask(rle)[5:25, 5:25].all()


@pytest.mark.parametrize("points", [[], [(0, 0)], [(0, 0), (9, 9)], [(0, 0), (9, 9), (4, 4)]])
def test_points_that_enclose_nothing_are_empty(points):
    assert close_outline(points).is_empty


@pytest.mark.parametrize(
    "geometry",
    [
        shapely.Point(5, 5),
        shapely.LineString([(0, 0), (9, 9)]),
        shapely.Polygon(),
        shapely.box(-9, -9, 0, 0),
        shapely.box(5.1, 5.1, 5.2, 5.2),
    ],
)
def test_what_encloses_no_pixel_is_none(geometry):
    assert fill_outline(geometry, height=HEIGHT, width=WIDTH) is None


# Decisions


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


# Several browsers and reviewers


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
from steatosis_d2.screening.screening import Screening

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


# The file of decisions


def test_decisions_are_on_disk_in_wal_mode_and_never_change(tmp_path, screening):
    decide(screening, "accept", 1)
    connection = sqlite3.connect(tmp_path / "decisions.sqlite")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    for statement in ("UPDATE decisions SET reviewer = 'x'", "DELETE FROM decisions"):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            connection.execute(statement)
    connection.close()


def test_failed_decision_leaves_no_trace(screening):
    def fail(decisions):
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        screening.log.append(1, fail)
    screening.log.append(1, lambda decisions: Entry("Ann", "accept", (1,)))
    assert len(screening.log.read(1)) == 1


def test_full_disk_is_called_by_its_name_and_loses_nothing(screening, monkeypatch):
    """The message once was that nothing could be rolled back."""
    decide(screening, "accept", 1)
    connect = sqlite3.connect

    def connect_to_full_disk(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count=1")  # no page more than there are
        return connection

    many = Entry("Ann", "accept", tuple(range(100_000)))
    with monkeypatch.context() as patch, pytest.raises(sqlite3.OperationalError, match="full"):
        patch.setattr(sqlite3, "connect", connect_to_full_disk)
        screening.log.append(1, lambda decisions: many)
    decide(screening, "reject", 2)
    assert [decision.label_ids for decision in screening.log.read(1)] == [(1,), (2,)]


def test_decisions_of_other_labels_are_refused(tmp_path, screening):
    other = read_labels(write_labels_file(tmp_path / "other.json", scores=(0.1, 0.2, 0.3)))
    with pytest.raises(InputError, match=r"made on another file than '.*other\.json'"):
        DecisionLog(tmp_path / "decisions.sqlite", other)


def test_missing_decisions_are_named(tmp_path, label_file):
    with pytest.raises(InputError, match=r"none\.sqlite' does not exist; screen the labels first"):
        DecisionLog(tmp_path / "none.sqlite", label_file)


@pytest.mark.parametrize("kind", ["text", "other database", "folder"])
def test_what_is_no_file_of_decisions_is_named(tmp_path, label_file, kind):
    path = tmp_path / "x.sqlite"
    if kind == "text":
        path.write_text("not a database at all, but long enough to have a header" * 4)
    elif kind == "folder":
        path.mkdir()
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE mine (a)")
        connection.close()
    content = path.read_bytes() if path.is_file() else None
    with pytest.raises(InputError, match=r"x\.sqlite' cannot be used"):
        DecisionLog(path, label_file, create=True)
    assert content is None or path.read_bytes() == content


# Labels files


def test_file_that_was_screened_before_goes_on_where_it_was(tmp_path):
    path = write_labels_file(tmp_path / "a.json", screening="rejected", iscrowd=1)
    label_file = read_labels(path)
    assert [label.screening for label in label_file.labels[1]] == [
        "rejected",
        "unreviewed",
        "unreviewed",
    ]
    assert label_file.regions == []


def test_areas_to_ignore_are_no_labels(tmp_path):
    label_file = read_labels(write_labels_file(tmp_path / "a.json", iscrowd=1))
    assert [label.id for label in label_file.labels[1]] == [2, 3]
    assert [region["id"] for region in label_file.regions] == [1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segmentation": None}, "neither a COCO run-length code nor a list"),
        ({"segmentation": {"size": [9, 9], "counts": "0"}}, r"size \[9, 9\]"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 5]}}, "add up to 10 px"),
        ({"score": 7}, "the score is 7; expected a number in 0..1"),
        ({"score": "high"}, "the score is 'high'"),
        ({"screening": "maybe"}, "'screening' is 'maybe'"),
        ({"id": "a"}, "the id is 'a'; expected a whole number"),
    ],
)
def test_unsound_label_is_named(tmp_path, changes, message):
    path = write_labels_file(tmp_path / "a.json")
    content = json.loads(path.read_text())
    content["annotations"][0] |= changes
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as error:
        read_labels(path)
    assert "a.json', image '1.png', annotation" in str(error.value)


def test_label_without_pixels_is_left_out(tmp_path, caplog):
    empty = encode_mask(np.zeros((HEIGHT, WIDTH), bool))
    label_file = read_labels(write_labels_file(tmp_path / "a.json", segmentation=empty))
    assert [label.id for label in label_file.labels[1]] == [2, 3]
    assert "annotation 1 has no pixels" in caplog.text


@pytest.mark.parametrize("name", ["../1.png", "/etc/passwd", "a/../../1.png", "..\\1.png", "a\0b"])
def test_image_outside_the_folder_is_refused(tmp_path, label_file, name):
    (tmp_path / "1.png").touch()
    (tmp_path / "images").mkdir()
    label_file.images[1]["file_name"] = name
    with pytest.raises(InputError, match="leads out of the image folder"):
        find_images(label_file, tmp_path / "images")


def test_missing_images_are_listed(tmp_path, label_file):
    (tmp_path / "2.png").touch()
    with pytest.raises(InputError, match=r"1 of the 2 images of '.*' are not in '.*': '1\.png'\."):
        find_images(label_file, tmp_path)
    with pytest.raises(InputError, match=r"image folder '.*none' does not exist"):
        find_images(label_file, tmp_path / "none")


# What comes out


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


# Agreement


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


# Ranking


def rank(labels, predictions):
    """``labels``: image name -> boxes; ``predictions``: image name -> (box, score)."""

    def coco(boxes_by_name):
        images, annotations = [], []
        for image_id, (name, boxes) in enumerate(boxes_by_name.items(), 1):
            images.append(image_record(image_id, name, height=HEIGHT, width=WIDTH))
            for box, score, *crowd in boxes:
                record = annotation_record(
                    len(annotations) + 1, image_id, encode_mask(box_mask(*box)), score=score
                )
                annotations.append(record | {"iscrowd": int(bool(crowd))})
        return {"images": images, "annotations": annotations}

    return rank_images(
        pair_images(coco(labels), coco(predictions), truth_name="l", predictions_name="p")
    )


ONE, TWO, WIDE = (0, 10, 0, 10), (20, 30, 20, 30), (0, 10, 0, 20)


@pytest.mark.parametrize(
    ("labels", "predictions", "expected"),
    [
        ([], [], 0),
        ([(ONE, 1)], [(ONE, 1)], 0),
        ([(ONE, 1)], [], 1),
        ([], [(ONE, 0.3)], 0.3),
        ([(ONE, 1)], [(ONE, 0.8)], 0.2),
        ([(WIDE, 1)], [(ONE, 0.8)], 1 - 0.8 * 0.5),
        ([(ONE, 1)], [(TWO, 0.6)], 1.6),
        ([(WIDE, 1, "crowd")], [(ONE, 0.9)], 0),
    ],
)
def test_objects_in_doubt(labels, predictions, expected):
    [image] = rank({"a": labels}, {"a": predictions})
    assert image.objects_in_doubt == pytest.approx(expected)
    assert 0 <= image.share <= 1


def test_images_with_most_in_doubt_come_first():
    labels = {"a": [(ONE, 1)], "b": [(ONE, 1), (TWO, 1)], "c": [], "d": [(ONE, 1)]}
    predictions = {"a": [(ONE, 1)], "b": [], "c": [(ONE, 0.5)], "d": []}
    assert [image.file_name for image in rank(labels, predictions)] == ["b", "d", "c", "a"]
