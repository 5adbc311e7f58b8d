# SPDX-License-Identifier: Apache-2.0
"""Who uses a device of this host: counted across threads and processes, the dead left out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from glance_store import exceptions
from glance_store._drivers.cinder.hoststate import Users, locked


def test_count(tmp_path: Path) -> None:
    users = Users(str(tmp_path / "state" / "volume.json"))
    users.add("first")
    users.add("second")
    assert users.remove("first") == 1
    assert users.remove("unknown") == 1
    assert users.remove("second") == 0
    assert list((tmp_path / "state").iterdir()) == []


def test_r170_processes_that_were_killed_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "volume.json"
    code = (
        "import sys, time\n"
        "from glance_store._drivers.cinder.hoststate import Users\n"
        f"Users({str(path)!r}).add('theirs')\n"
        "print('noted', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "noted\n"
        users = Users(str(path))
        users.add("own")
        assert users.remove("own") == 1
        program.send_signal(signal.SIGKILL)
        program.wait()
    users.add("own")
    assert users.remove("own") == 0


@pytest.mark.parametrize(
    ("change", "counts"),
    [({"boot": "another"}, 0), ({"namespace": "another"}, 1), ({"started": "1"}, 0)],
    ids=["reboot", "container", "reused-id"],
)
def test_entries_of_another_world(tmp_path: Path, change: dict[str, str], counts: int) -> None:
    path = tmp_path / "volume.json"
    users = Users(str(path))
    users.add("other")
    found = json.loads(path.read_text())
    found["attachments"][0].update(change)
    path.write_text(json.dumps(found))
    assert users.remove("own") == counts


@pytest.mark.parametrize("text", ["", "{", "[]", '{"attachments": 3}', '{"attachments": [{}]}'])
def test_damaged_list(tmp_path: Path, text: str) -> None:
    path = tmp_path / "volume.json"
    path.write_text(text)
    users = Users(str(path))
    users.add("own")
    assert users.remove("own") == 0


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
