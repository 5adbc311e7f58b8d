# SPDX-License-Identifier: Apache-2.0
"""Who uses a device of this host: counted across threads and processes, the dead left out."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from glance_store import exceptions
from glance_store._drivers.cinder.locks import Users, holds_a_lock, locked
from tests.waiting import until


def test_count(tmp_path: Path) -> None:
    users = Users(str(tmp_path / "state" / "volume"))
    users.add("first")
    users.add("second")
    assert users.remove("first") == 1
    assert users.remove("unknown") == 1
    assert users.remove("second") == 0
    assert list((tmp_path / "state").iterdir()) == []


@contextlib.contextmanager
def noted(path: Path, *before: str, first: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run a process that notes an attachment ``theirs``, and stays.

    :param before: what runs Python
    :param first: what it does before it says so
    """
    code = (
        "import os, sys\n"
        "from glance_store._drivers.cinder.locks import Users\n"
        f"Users({str(path)!r}).add('theirs')\n"
        f"{first}"
        "print('noted', flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*before, sys.executable, "-c", code], text=True, **pipes) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "noted\n"
        yield program


def test_r170_processes_that_were_killed_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "volume"
    with noted(path) as program:
        users = Users(str(path))
        users.add("own")
        assert users.remove("own") == 1
        program.kill()
        program.wait()
    users.add("own")
    assert users.remove("own") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a PID namespace")
def test_process_of_another_container(tmp_path: Path) -> None:
    """It cannot be seen from here, and counts for as long as it lives."""
    path = tmp_path / "volume"
    users = Users(str(path))
    with noted(path, "unshare", "--pid", "--fork", "--kill-child") as program:
        users.add("own")
        assert users.remove("own") == 1
        program.kill()
    until(lambda: users.remove("own") == 0, "the killed process counts no more")


def test_who_has_ended(tmp_path: Path) -> None:
    """A process that noted an attachment and was killed; not one that lives, nor one elsewhere."""
    path = tmp_path / "volume"
    users = Users(str(path))
    with noted(path) as program:
        users.add("own")
        assert [users.has_ended(one) for one in ("theirs", "own", "elsewhere")] == [False] * 3
        program.kill()
    assert [users.has_ended(one) for one in ("theirs", "own", "elsewhere")] == [True, False, False]
    assert users.remove("own") == 0
    assert not users.has_ended("theirs")


def test_fork_does_not_prolong_the_use(tmp_path: Path) -> None:
    """A child that lives on holds nothing of what its parent has used."""
    path = tmp_path / "volume"
    lives_on = "if not os.fork():\n    sys.stdin.read()\n    os._exit(0)\n"
    with noted(path, first=lives_on) as program:
        program.kill()
        program.wait()
        users = Users(str(path))
        until(lambda: users.remove("own") == 0, "the killed process counts no more")


def test_what_cannot_be_noted_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        Users(str(tmp_path / "file")).add("own")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_makes_belongs_to_the_service(tmp_path: Path) -> None:
    """An operator's command that runs as root keeps no volume from the service."""
    os.chown(tmp_path, 12345, 23456)
    with locked(str(tmp_path / "lock"), 1):
        users = Users(str(tmp_path / "attachments" / "volume"))
        users.add("one")
    made = list(tmp_path.rglob("*"))
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(12345, 23456)}
    assert len(made) == 4
    assert users.remove("one") == 0


def test_thread_that_holds_a_lock(tmp_path: Path) -> None:
    seen = []
    with locked(str(tmp_path / "one"), 1):
        assert holds_a_lock()
        other = threading.Thread(target=lambda: seen.append(holds_a_lock()))
        other.start()
        other.join()
    assert not holds_a_lock()
    assert seen == [False]


def test_r171_lock_among_threads_and_processes(tmp_path: Path) -> None:
    path = str(tmp_path / "locks" / "lock")
    inside: list[int] = []

    def work(number: int) -> None:
        with locked(path, 60):
            inside.append(number)
            assert inside == [number]
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with locked(path, 0):
        child = os.fork()
        if child == 0:
            try:
                with locked(path, 0):
                    os._exit(1)
            except exceptions.TimeoutError:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    with locked(path, 0):
        pass
