"""Decisions on disk: an SQLite file to which entries are added and in which none ever changes."""

import contextlib
import json
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from steatosis_d2.errors import InputError
from steatosis_d2.screening.labels import Label
from steatosis_d2.screening.state import Decision

# "StD2"; tells our files from other SQLite files.
_APPLICATION_ID = 0x53744432
_WAIT_S = 10
_SCHEMA = (
    "CREATE TABLE source (file_name TEXT NOT NULL, sha256 TEXT NOT NULL)",
    """CREATE TABLE decisions (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        made_at TEXT NOT NULL,      -- UTC
        reviewer TEXT NOT NULL,
        image_id INTEGER NOT NULL,
        action TEXT NOT NULL,
        label_ids TEXT NOT NULL,    -- JSON list: judged, or replaced by an edit
        undoes INTEGER UNIQUE REFERENCES decisions
    )""",
    "CREATE INDEX decisions_of_image ON decisions (image_id, number)",
    """CREATE TABLE labels (           -- made by edits
        id INTEGER PRIMARY KEY,
        decision INTEGER NOT NULL REFERENCES decisions,
        rle TEXT NOT NULL           -- JSON
    )""",
    "CREATE INDEX labels_of_decision ON labels (decision)",
    """CREATE TRIGGER keep_decisions BEFORE UPDATE ON decisions
        BEGIN SELECT RAISE(ABORT, 'decisions are never changed'); END""",
    """CREATE TRIGGER keep_all_decisions BEFORE DELETE ON decisions
        BEGIN SELECT RAISE(ABORT, 'decisions are never deleted'); END""",
    f"PRAGMA application_id={_APPLICATION_ID}",
    "PRAGMA user_version=1",
)


@dataclass(frozen=True, eq=False)
class Entry:
    """
    What is to be decided, before it has a number.

    Attributes:
        reviewer (str): who decides.
        action (str): as :class:`~steatosis_d2.screening.state.Decision` has it.
        label_ids (tuple[int, ...]): labels that are judged, or replaced by an edit.
        rles (tuple[dict, ...]): masks of the labels that an edit makes.
        undoes (int or None): number of the decision to take back.
    """

    reviewer: str
    action: str
    label_ids: tuple[int, ...] = ()
    rles: tuple[dict, ...] = ()
    undoes: int | None = None


class DecisionLog:
    """
    The decisions on one file of labels.

    Any number of processes may have the same file open. A decision that :meth:`append` has
    returned is on disk, whatever happens to process or machine (WAL, ``synchronous=FULL``).
    """

    def __init__(self, path, label_file, *, create=False):
        """
        Open the log of a file of labels.

        Args:
            path (str or Path): the SQLite file.
            label_file (LabelFile): the labels that are decided on.
            create (bool): make the file if it does not exist.

        Raises:
            InputError: it does not exist, is no such file, is of other labels, or cannot be
                written.
        """
        self.path = Path(path)
        if not create and not self.path.is_file():
            raise InputError(
                f"file of decisions '{self.path}' does not exist; screen the labels first "
                "(tools/screen_labels.py serve), or give --decisions."
            )
        try:
            with self._connect() as connection:
                if create and not connection.execute("PRAGMA user_version").fetchone()[0]:
                    self._create(connection, label_file)
                self._check(connection, label_file)
        except sqlite3.Error as error:
            raise InputError(
                f"file of decisions '{self.path}' cannot be used ({error}); expected one that "
                "tools/screen_labels.py serve made, in a folder that can be written to."
            ) from None
        self._first_free_id = label_file.highest_id + 1

    def read(self, image_id):
        """
        All decisions on an image.

        Args:
            image_id (int): of the image.

        Returns:
            list[Decision]: in order.
        """
        with self._connect() as connection:
            return self._read(connection, image_id)

    def read_all(self):
        """
        All decisions.

        Returns:
            dict: image id (int) -> list[Decision] in order; without images that have none.
        """
        decisions: dict[int, list[Decision]] = {}
        with self._connect() as connection:
            for decision in self._read(connection):
                decisions.setdefault(decision.image_id, []).append(decision)
        return decisions

    def list_reviewers(self):
        """
        Names of all who have decided.

        Returns:
            list[str]: in alphabetical order.
        """
        with self._connect() as connection:
            rows = connection.execute("SELECT DISTINCT reviewer FROM decisions ORDER BY reviewer")
            return [name for [name] in rows]

    def append(self, image_id, decide):
        """
        Look at an image's decisions and add one, with nobody else deciding in between.

        Args:
            image_id (int): of the image.
            decide (callable): list of Decision, as :meth:`read` gives -> Entry. If it raises,
                nothing is added.

        Returns:
            Decision: on disk.
        """
        with self._connect() as connection, _locked(connection):
            entry = decide(self._read(connection, image_id))
            return self._write(connection, image_id, entry)

    @contextlib.contextmanager
    def _connect(self):
        connection = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous=FULL")
            yield connection
        finally:
            connection.close()

    def _create(self, connection, label_file):
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return  # not ours, as _check finds, or another process has just made it
        connection.execute("PRAGMA journal_mode=WAL")
        with _locked(connection):
            if connection.execute("PRAGMA user_version").fetchone()[0]:
                return
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO source VALUES (?, ?)", (label_file.path.name, label_file.digest)
            )

    def _check(self, connection, label_file):
        if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
            raise sqlite3.DatabaseError("it holds other data")
        [name, digest] = connection.execute("SELECT file_name, sha256 FROM source").fetchone()
        if digest != label_file.digest:
            raise InputError(
                f"the decisions in '{self.path}' were made on another file than "
                f"'{label_file.path}' is now (then '{name}', SHA-256 {digest[:12]}...; now "
                f"{label_file.digest[:12]}...). Give the labels they were made on, or another "
                "file with --decisions."
            )

    def _read(self, connection, image_id=None):
        """Decisions on an image, or on all, in order."""
        where, of_image = ("WHERE image_id = ?", (image_id,)) if image_id is not None else ("", ())
        added: dict[int, list[Label]] = {}
        for label_id, number, rle in connection.execute(
            "SELECT labels.id, decision, rle FROM labels JOIN decisions ON decision = number "
            f"{where} ORDER BY labels.id",
            of_image,
        ):
            added.setdefault(number, []).append(Label(label_id, json.loads(rle)))
        rows = connection.execute(
            "SELECT number, made_at, reviewer, image_id, action, label_ids, undoes "
            f"FROM decisions {where} ORDER BY number",
            of_image,
        )
        return [
            Decision(
                number=number,
                made_at=made_at,
                reviewer=reviewer,
                image_id=image,
                action=action,
                label_ids=tuple(json.loads(label_ids)),
                added=tuple(added.get(number, ())),
                undoes=undoes,
            )
            for number, made_at, reviewer, image, action, label_ids, undoes in rows
        ]

    def _write(self, connection, image_id, entry):
        made_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        label_ids = json.dumps(list(entry.label_ids))
        number = connection.execute(
            "INSERT INTO decisions (made_at, reviewer, image_id, action, label_ids, undoes) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (made_at, entry.reviewer, image_id, entry.action, label_ids, entry.undoes),
        ).lastrowid
        [highest] = connection.execute("SELECT max(id) FROM labels").fetchone()
        first = self._first_free_id if highest is None else highest + 1
        added = tuple(Label(first + i, rle) for i, rle in enumerate(entry.rles))
        connection.executemany(
            "INSERT INTO labels VALUES (?, ?, ?)",
            [(label.id, number, json.dumps(label.rle)) for label in added],
        )
        return Decision(
            number=number,
            made_at=made_at,
            reviewer=entry.reviewer,
            image_id=image_id,
            action=entry.action,
            label_ids=entry.label_ids,
            added=added,
            undoes=entry.undoes,
        )


@contextlib.contextmanager
def _locked(connection):
    """One transaction, with nobody else writing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has ended it itself where the disk is full
            connection.execute("ROLLBACK")
        raise
