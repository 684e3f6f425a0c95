import json
import logging
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steatosis_d2.data.sources import Sample
from steatosis_d2.data.splits import choose_splits, read_splits, split_as_listed, split_by_case
from steatosis_d2.errors import InputError

FRACTIONS = (0.8, 0.1, 0.1)
FILE = Path("splits.json")


def samples_of(*names):
    """Samples whose case is the name up to its underscore."""
    return [
        Sample(name, name.partition("_")[0], Path(f"{name}.webp"), Path(f"{name}.png"))
        for name in names
    ]


def names_in(splits):
    return {split: [sample.name for sample in samples] for split, samples in splits.items()}


def write(path, content):
    path.write_text(json.dumps(content))
    return path


# ---- by a hash of the case


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), unique=True),
    st.sampled_from([FRACTIONS, (0.7, 0.3, 0.0), (0.0, 0.0, 1.0), (0.5, 0.25, 0.25)]),
    st.randoms(use_true_random=False),
)
def test_every_sample_once_and_cases_whole_in_any_order(numbers, fractions, random):
    samples = samples_of(*(f"{case}_{tile}" for case, tile in numbers))
    splits = split_by_case(samples, fractions)
    assert sorted(chain(*splits.values())) == sorted(samples)
    cases = [{sample.case for sample in part} for part in splits.values()]
    assert len(set.union(*cases)) == sum(map(len, cases))
    random.shuffle(samples)
    assert split_by_case(samples, fractions) == splits


@pytest.mark.parametrize(
    "count, expected",
    [
        (0, (0, 0, 0)),
        (1, (1, 0, 0)),
        (2, (1, 1, 0)),
        (3, (1, 1, 1)),
        (8, (6, 1, 1)),
        (100, (80, 10, 10)),
        (315, (252, 32, 31)),
    ],
)
def test_number_of_cases_follows_the_fractions(count, expected):
    samples = samples_of(*(f"{number}_0" for number in range(count)))
    assert tuple(map(len, split_by_case(samples, FRACTIONS).values())) == expected


def test_split_is_the_same_on_every_machine():
    """In order of their SHA-256 sums the cases are d, c, b, e, a, as sha256sum tells."""
    splits = split_by_case(samples_of("a", "b", "c", "d", "e"), (0.6, 0.2, 0.2))
    assert names_in(splits) == {"train": ["a", "d", "e"], "val": ["c"], "test": ["b"]}


def test_split_of_no_cases_wanted_stays_empty():
    splits = split_by_case(samples_of("a", "b", "c"), (0.0, 0.0, 1.0))
    assert names_in(splits) == {"train": [], "val": [], "test": ["a", "b", "c"]}


# ---- from a file


def test_names_with_and_without_suffix():
    listed = {"train": ["a_1"], "val": ["b_1.webp"], "test": []}
    splits = split_as_listed(samples_of("a_1", "b_1"), listed, file=FILE)
    assert names_in(splits) == {"train": ["a_1"], "val": ["b_1"], "test": []}


def test_samples_in_no_split_are_left_out_loudly(caplog):
    listed = {"train": ["a_1"], "val": [], "test": []}
    splits = split_as_listed(samples_of("a_1", "b_1", "c_1"), listed, file=FILE)
    assert names_in(splits) == {"train": ["a_1"], "val": [], "test": []}
    assert "2 of 3 images are in no split" in caplog.text
    assert "b_1, c_1" in caplog.text


def test_unknown_name_is_an_error():
    listed = {"train": ["a_1"], "val": ["z_9"], "test": []}
    with pytest.raises(InputError, match=r"splits\.json' names 1 images .* first is 'z_9'"):
        split_as_listed(samples_of("a_1"), listed, file=FILE)


def test_case_in_two_splits_is_an_error_that_names_both():
    listed = {"train": ["a_1"], "val": [], "test": ["a_2"]}
    with pytest.raises(InputError, match=r"case 'a' in two splits: 'a_1' in train, 'a_2' in test"):
        split_as_listed(samples_of("a_1", "a_2"), listed, file=FILE)


def test_name_listed_twice_in_a_split_counts_once():
    listed = {"train": ["a_1", "a_1.webp"], "val": [], "test": []}
    assert names_in(split_as_listed(samples_of("a_1"), listed, file=FILE))["train"] == ["a_1"]


def test_splits_that_a_file_leaves_out_are_empty(tmp_path):
    path = write(tmp_path / "splits.json", {"train": ["a"]})
    assert read_splits(path) == {"train": ["a"], "val": [], "test": []}


@pytest.mark.parametrize(
    "content, match",
    [
        ({"training": ["a"]}, "training"),
        ({"train": "a"}, "'train' is no list of names"),
        ({"train": [1]}, "'train' is no list of names"),
        ({}, r"holds \[\]"),
        (["a"], "holds list"),
    ],
)
def test_file_of_another_form_is_an_error(tmp_path, content, match):
    with pytest.raises(InputError, match=match):
        read_splits(write(tmp_path / "splits.json", content))


def test_file_that_is_no_json_is_an_error(tmp_path):
    (tmp_path / "splits.json").write_bytes(b"\xff\xfetrain")
    with pytest.raises(InputError, match="is not JSON"):
        read_splits(tmp_path / "splits.json")


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"absent\.json' does not exist"):
        read_splits(tmp_path / "absent.json")


# ---- which of the two


def test_file_in_or_beside_the_source_is_taken_and_said_so(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "splits.json", {"test": ["a_1", "b_1"]})
    splits = choose_splits(samples_of("a_1", "b_1"), look_in=(tmp_path / "inside", tmp_path))
    assert names_in(splits)["test"] == ["a_1", "b_1"]
    assert str(path) in caplog.text


def test_fractions_win_over_a_file_beside_the_source(tmp_path):
    write(tmp_path / "splits.json", {"train": ["a_1"]})
    splits = choose_splits(samples_of("a_1"), fractions=(0.0, 1.0, 0.0), look_in=(tmp_path,))
    assert names_in(splits) == {"train": [], "val": ["a_1"], "test": []}


def test_stated_file_wins_over_the_one_beside_the_source(tmp_path):
    write(tmp_path / "splits.json", {"train": ["a_1"]})
    stated = write(tmp_path / "mine.json", {"val": ["a_1"]})
    splits = choose_splits(samples_of("a_1"), file=stated, look_in=(tmp_path,))
    assert names_in(splits) == {"train": [], "val": ["a_1"], "test": []}
