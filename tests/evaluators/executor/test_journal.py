from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from evaluators.executor import Job, Journal
from evaluators.executor.journal import JournalError


def job(key: str) -> Job:
    return Job(key=key, split="search", prompts=(1, 2))


def append_many(path: Path, name: str) -> None:
    journal = Journal(path)
    for i in range(50):
        journal.start(job(f"{name}{i}"))
        journal.finish(job(f"{name}{i}"), "done")


def test_starts_and_finishes_are_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new" / "journal.jsonl")
    assert journal.read() == []
    journal.start(job("a"))
    journal.finish(job("a"), "failed")
    assert [(e.event, e.key, e.prompts, e.status) for e in journal.read()] == [
        ("start", "a", 2, None),
        ("finish", "a", 2, "failed"),
    ]


@pytest.mark.parametrize("cut", [1, 20])
def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_append(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.start(job("a"))
    journal.start(job("b"))
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    assert [e.key for e in journal.read()] == ["a"]
    journal.start(job("c"))
    assert [e.key for e in journal.read()] == ["a", "c"]


def test_the_only_line_may_be_torn(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.write_bytes(b'{"event": "sta')
    assert journal.read() == []
    journal.start(job("a"))
    assert [e.key for e in journal.read()] == ["a"]


def test_damage_elsewhere_is_an_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.write_bytes(b"nonsense\n")
    journal.start(job("a"))
    with pytest.raises(JournalError, match=r"journal\.jsonl:1"):
        journal.read()


def test_processes_append_together(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(path, name)) for name in "xyz"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(Journal(path).read()) == 300
