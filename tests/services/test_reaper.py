# SPDX-License-Identifier: Apache-2.0
"""A run that is killed leaves nothing: no process, no mount, no loop device, no file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import reaper
from tests.services.fixtures import unavailable
from tests.waiting import PATIENCE, until

ROOT = Path(__file__).parents[2]

# A run with a process in a session of its own, one that knows nothing of the run but its folder,
# and one that has lost its parent.
RUN = """
import os, subprocess, sys, tempfile
from tests.services import reaper
reaper.start_run()
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
folder = tempfile.mkdtemp()
servers = [
    subprocess.Popen(sleep, start_new_session=True),
    subprocess.Popen(sleep, start_new_session=True, env={}, cwd=folder),
]
orphan = "import subprocess as s, sys; print(s.Popen(sys.argv[1:], stdout=s.DEVNULL).pid)"
lost = subprocess.run([sys.executable, "-c", orphan, *sleep], stdout=subprocess.PIPE, check=True)
print(os.environ[reaper.VARIABLE], int(lost.stdout), *(it.pid for it in servers), flush=True)
sys.stdin.read()
"""


def start() -> tuple[subprocess.Popen[str], Path, list[int]]:
    """Start a run; return it, its folder, and its other processes."""
    outside = {name: value for name, value in os.environ.items() if name != reaper.VARIABLE}
    run = subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=outside,
    )
    assert run.stdout is not None
    folder, *pids = run.stdout.readline().split()
    return run, Path(folder), [int(pid) for pid in pids]


def check_gone(folder: Path, pids: list[int]) -> None:
    until(lambda: not any(map(reaper._alive, pids)), f"processes {pids} end")
    until(lambda: not folder.exists(), f"{folder} is removed")


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_killed_run_leaves_no_process(sign: signal.Signals) -> None:
    run, folder, pids = start()
    with run:
        assert folder.exists()
        assert all(map(reaper._alive, pids))
        run.send_signal(sign)
        run.wait(PATIENCE)
        check_gone(folder, pids)


def test_run_that_ends_by_itself_leaves_none_either() -> None:
    run, folder, pids = start()
    run.communicate(timeout=PATIENCE)
    check_gone(folder, pids)


def test_other_runs_are_left_alone() -> None:
    first, first_folder, first_pids = start()
    second, second_folder, second_pids = start()
    with first, second:
        first.kill()
        check_gone(first_folder, first_pids)
        assert second_folder.exists()
        assert all(map(reaper._alive, second_pids))
        second.kill()
        check_gone(second_folder, second_pids)


def test_mounts_and_loop_devices_go() -> None:
    if os.geteuid():
        unavailable("mounting needs root")
    run, folder, pids = start()
    with run:
        place, disk = folder / "mounted", folder / "disk"
        place.mkdir()
        with disk.open("wb") as file:
            file.truncate(1024 * 1024)
        mount = ["mount", "-t", "tmpfs", "none", str(place)]
        subprocess.run(mount, check=True)
        loop = ["losetup", "--find", "--show", str(disk)]
        shown = subprocess.run(loop, check=True, capture_output=True, text=True)
        backing = Path("/sys/block") / Path(shown.stdout.strip()).name / "loop" / "backing_file"
        assert str(disk) in backing.read_text()
        run.kill()
        check_gone(folder, pids)
        assert str(folder) not in Path("/proc/self/mounts").read_text()
        until(
            lambda: not backing.exists() or str(disk) not in backing.read_text(),
            f"{shown.stdout.strip()} is free",
        )
