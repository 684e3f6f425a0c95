"""The file of decisions: durable, whole, and that of its labels."""

import sqlite3

import pytest
from screening_actions import decide, write_labels_file

from steatosis_d2.errors import InputError
from steatosis_d2.screening.labels import read_labels
from steatosis_d2.screening.log import DecisionLog, Entry


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
