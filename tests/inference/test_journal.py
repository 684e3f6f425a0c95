"""The journal: what was appended is read again, whatever happened to the file's end."""

import resource
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steatosis_d2.inference.journal import Journal, read_records
from steatosis_d2.instances.instance import Instance
from steatosis_d2.instances.packing import pack_instances, unpack_instances

RECORDS = [b"one", b"", b"three" * 1000]


@pytest.fixture
def written(tmp_path):
    """A journal with RECORDS."""
    path = tmp_path / "journal"
    with Journal(path) as journal:
        for record in RECORDS:
            journal.append(record)
    return path


def test_records_are_read_in_order(written):
    assert list(read_records(written)) == RECORDS


def test_reopened_journal_goes_on_at_its_end(written):
    with Journal(written) as journal:
        journal.append(b"four")
    assert list(read_records(written)) == [*RECORDS, b"four"]


@pytest.mark.parametrize("n_bytes", range(1, 30))
def test_record_that_was_cut_short_is_dropped_for_good(written, n_bytes, caplog):
    written.write_bytes(written.read_bytes()[:-n_bytes])
    with Journal(written) as journal:
        journal.append(b"new")
    assert list(read_records(written)) == [*RECORDS[:-1], b"new"]
    assert "unfinished record" in caplog.text


def test_what_follows_a_damaged_record_is_dropped(written):
    content = bytearray(written.read_bytes())
    content[9] ^= 1  # in the first record
    written.write_bytes(content)
    assert list(read_records(written)) == []
    with Journal(written) as journal:
        journal.append(b"new")
    assert list(read_records(written)) == [b"new"]


def test_block_of_zeros_is_no_record(written):
    """A power failure can leave the end of a file allocated but not written."""
    written.write_bytes(written.read_bytes() + bytes(100))
    with Journal(written) as journal:
        journal.append(b"new")
    assert list(read_records(written)) == [*RECORDS, b"new"]


def test_full_disk_leaves_the_journal_as_it_was(tmp_path):
    """A limit on the size of files stands in for the disk; it holds for a process of its own."""
    path = tmp_path / "journal"
    script = """
import sys
from pathlib import Path
from steatosis_d2.inference.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.append(b"fits")
try:
    journal.append(b"too long" * 1000)
except OSError as error:
    print(error)
journal.append(b"fits, too")
"""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    process = subprocess.run(
        [sys.executable, "-c", script, path],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "File too large" in process.stdout
    assert str(path) in process.stdout
    assert list(read_records(path)) == [b"fits", b"fits, too"]


@given(
    groups=st.lists(
        st.lists(
            st.tuples(
                st.integers(1, 20),
                st.integers(1, 20),
                st.integers(-(2**31), 2**31 - 1),
                st.integers(-(2**31), 2**31 - 1),
                st.floats(0, 1),
                st.booleans(),
                st.integers(0, 2**32 - 1),
            ),
            max_size=5,
        ),
        max_size=5,
    )
)
def test_instances_survive_encoding(groups):
    instances = [
        [
            Instance(np.random.default_rng(seed).random((h, w)) < 0.5, top, left, score, cut)
            for h, w, top, left, score, cut, seed in group
        ]
        for group in groups
    ]
    decoded = unpack_instances(pack_instances(instances))
    assert [len(group) for group in decoded] == [len(group) for group in instances]
    for one, other in zip(chain(*instances), chain(*decoded), strict=True):
        np.testing.assert_array_equal(one.crop, other.crop)
        assert (one.top, one.left, one.score, one.truncated) == (
            other.top,
            other.left,
            other.score,
            other.truncated,
        )
