"""The jobs on disk: one SQLite file, written by one server.

A live job has a *plan* (what was accepted; it hardly changes), its *progress* (replaced at each transition) and the
*summary* that lists show. A job that has ended has its summary and the *description* that it keeps for ever. Each has
its *tags*, which may change at any time. All are JSON. What was committed survives the server's SIGKILL; what was
inserted survives the machine's, too.
"""

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from spotproof.errors import EngineError

__all__ = ["JobStore", "SavedJob"]

FORMAT: Final = 2
"""Of the tables and of the documents in them."""
_APPLICATION: Final = 0x53504F54
"""Tells our files from other SQLite files: "SPOT"."""
_TABLES: Final = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    plan TEXT,
    progress TEXT,
    summary TEXT NOT NULL,
    description TEXT,
    tags TEXT NOT NULL DEFAULT '{}',
    CHECK ((plan IS NULL) = (progress IS NULL) AND (plan IS NULL) <> (description IS NULL))
)
"""
_UPGRADE: Final = "ALTER TABLE jobs ADD COLUMN tags TEXT NOT NULL DEFAULT '{}'"
"""From format 1."""
_CHECKPOINT_BYTES: Final = 4 * 1024 * 1024
"""Of the write-ahead log; SQLite's own default, 1000 pages."""

Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedJob:
    """A job that was alive when the server ended."""

    name: str
    plan: dict[str, Any]
    progress: dict[str, Any]


class JobStore:
    """All jobs of one state directory. All methods may be called from any thread.

    Its methods raise :class:`sqlite3.Error` if the disk fails.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file.

        Raises:
            EngineError: It is damaged, of another program, of a newer version, or can't be opened.
        """
        self._path = path
        self._lock, self._reading = threading.Lock(), threading.Lock()
        with self._clear_errors():
            # Requests may hold secrets; SQLite gives its other files the mode of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._writer = self._connect()
        try:
            with self._clear_errors():
                self._prepare()
                # Readers don't wait for writers, and copying the log into the file holds up neither.
                self._reader, self._checkpointer = self._connect(), self._connect()
        except BaseException:
            self._writer.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        return connection

    def _prepare(self) -> None:
        ((application,),) = self._writer.execute("PRAGMA application_id")
        ((version,),) = self._writer.execute("PRAGMA user_version")
        ((num_tables,),) = self._writer.execute("SELECT count(*) FROM sqlite_master")
        if application == 0 and version == 0 and num_tables == 0:
            self._writer.execute("PRAGMA journal_mode=WAL")
            with self._transaction():
                self._writer.execute(_TABLES)
                self._writer.execute(f"PRAGMA application_id={_APPLICATION}")
                self._writer.execute(f"PRAGMA user_version={FORMAT}")
            return
        if application != _APPLICATION:
            raise EngineError(
                f"{self._path} is not ours:",
                why="it is a database of another program.",
                do="Choose another state directory.",
            )
        if version > FORMAT:
            raise EngineError(
                f"{self._path} was written by a newer Spotproof:",
                why=f"it has format {version}, and this version reads {FORMAT}.",
                do="Update Spotproof, or choose another state directory.",
            )
        ((verdict,),) = self._writer.execute("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise self._damaged(verdict)
        if version == 1:
            with self._transaction():
                self._writer.execute(_UPGRADE)
                self._writer.execute(f"PRAGMA user_version={FORMAT}")

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise EngineError(
                f"{self._path} can't be used:",
                why=f"{error}.",
                do="See that the disk has room and the folder is yours, or choose another state directory.",
            ) from error
        except (sqlite3.DatabaseError, ValueError, TypeError, KeyError) as error:
            raise self._damaged(error) from error

    def _damaged(self, reason: object) -> EngineError:
        return EngineError(
            f"The jobs in {self._path} can't be read:",
            why=f"the file is damaged ({reason}).",
            do="Move it away with its -wal and -shm files, or choose another state directory; objects in S3 and logs "
            "are not in it and stay.",
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # some errors have ended it already
                self._writer.execute("ROLLBACK")
            raise
        self._writer.execute("COMMIT")

    def load(self) -> tuple[list[dict[str, Any]], list[SavedJob]]:
        """Return the summaries of all jobs, and what is needed of the live ones; oldest first.

        Raises:
            EngineError: Something in the file is damaged.
        """
        with self._clear_errors(), self._reading:
            rows = self._reader.execute("SELECT name, plan, progress, summary FROM jobs ORDER BY number").fetchall()
            live = [
                SavedJob(name=name, plan=json.loads(plan), progress=json.loads(progress))
                for name, plan, progress, _ in rows
                if plan is not None
            ]
            return [json.loads(summary) for *_, summary in rows], live

    def insert(self, name: str, plan: Document, progress: Document, summary: Document, tags: Mapping[str, str]) -> None:
        """Keep a new job; it is on the disk when this returns.

        Raises:
            sqlite3.IntegrityError: There is one of that name.
        """
        with self._lock:
            self._writer.execute(
                "INSERT INTO jobs (name, plan, progress, summary, tags) VALUES (?, ?, ?, ?, ?)",
                (name, _text(plan), _text(progress), _text(summary), _text(tags)),
            )
        self._flush()

    def save(self, name: str, progress: Document, summary: Document) -> None:
        """Replace what changes of a live job."""
        with self._lock:
            self._writer.execute(
                "UPDATE jobs SET progress = ?, summary = ? WHERE name = ? AND plan IS NOT NULL",
                (_text(progress), _text(summary), name),
            )

    def save_plan(self, name: str, plan: Document) -> None:
        """Replace what hardly changes of a live job."""
        with self._lock:
            self._writer.execute("UPDATE jobs SET plan = ? WHERE name = ? AND plan IS NOT NULL", (_text(plan), name))

    def finish(self, name: str, summary: Document, description: Document) -> None:
        """Keep the description of a job that has ended, and nothing else of it."""
        with self._lock:
            self._writer.execute(
                "UPDATE jobs SET plan = NULL, progress = NULL, summary = ?, description = ? WHERE name = ?",
                (_text(summary), _text(description), name),
            )

    def description(self, name: str) -> dict[str, Any] | None:
        """Return the description of a job that has ended; None if there is none."""
        with self._reading:
            row = self._reader.execute("SELECT description FROM jobs WHERE name = ?", (name,)).fetchone()
        return None if row is None or row[0] is None else dict(json.loads(row[0]))

    def tags(self, name: str) -> dict[str, str]:
        """Return a job's tags; empty if there is no such job."""
        with self._reading:
            row = self._reader.execute("SELECT tags FROM jobs WHERE name = ?", (name,)).fetchone()
        return {} if row is None else dict(json.loads(row[0]))

    def save_tags(self, name: str, tags: Mapping[str, str]) -> None:
        """Replace a job's tags."""
        with self._lock:
            self._writer.execute("UPDATE jobs SET tags = ? WHERE name = ?", (_text(tags), name))

    def delete(self, name: str) -> None:
        """Forget a job; it stays forgotten when this returns."""
        with self._lock:
            self._writer.execute("DELETE FROM jobs WHERE name = ?", (name,))
        self._flush()

    def shrink_log(self) -> None:
        """Copy a long write-ahead log into the file, without keeping anybody waiting."""
        log = self._path.with_name(self._path.name + "-wal")
        if log.exists() and log.stat().st_size > _CHECKPOINT_BYTES:
            self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Close the file. Nothing depends on it."""
        with self._lock, self._reading:
            for connection in (self._checkpointer, self._reader, self._writer):
                connection.close()

    def _flush(self) -> None:
        """Bring what is committed to the disk: SQLite itself does so only when it copies the log.

        Not under the lock, so that no transition of another job waits for the disk.
        """
        try:
            fd = os.open(self._path.with_name(self._path.name + "-wal"), os.O_RDONLY)
        except FileNotFoundError:  # a file system on which SQLite can't have one; there it syncs at each commit
            return
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _text(document: Document) -> str:
    return json.dumps(document, separators=(",", ":"))
