# SPDX-License-Identifier: Apache-2.0
"""What ends a run of the tests when the run itself cannot, as after SIGKILL.

python reaper.py PID FOLDER: wait until a process has ended, then kill every process of its run,
unmount what the run has mounted, let go of its loop devices, and remove its folder. A process is of
the run if the variable GLANCE_STORE_TEST_RUN of its environment is FOLDER, or if it works there:
servers have sessions of their own, and orphans no parent that could be asked.

It needs nothing but Python: ``tools/test.sh`` starts it before there is an environment.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "GLANCE_STORE_TEST_RUN"
# For so long processes that are killed, and what they use, may take to go.
PATIENCE = 30.0


def start_run() -> None:
    """Give this process a folder for all that its run makes, and a reaper; once in a run."""
    if VARIABLE in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="glance_store-run-")
    command = [sys.executable, __file__, str(os.getpid()), folder]
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    # It is not of the run, and a signal to the group of the run is not for it.
    os.posix_spawn(sys.executable, command, os.environ, file_actions=quiet, setsid=True)
    os.environ[VARIABLE] = os.environ["TMPDIR"] = folder
    # The module has looked for it, and remembers.
    tempfile.tempdir = None


def wait_for_end(pid: int) -> None:
    """Wait until a process has ended."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        select.select([descriptor], [], [])


def members(folder: str) -> Iterator[int]:
    """Yield the ids of the processes of a run."""
    mark = os.fsencode(f"{VARIABLE}={folder}")
    for entry in Path("/proc").glob("[0-9]*"):
        # Processes go, and those of other users are none of ours.
        with contextlib.suppress(OSError):
            if int(entry.name) == os.getpid():
                continue
            marked = mark in (entry / "environ").read_bytes().split(b"\0")
            if marked or _inside(os.readlink(entry / "cwd"), folder):
                yield int(entry.name)


def _inside(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)


def kill_all(folder: str) -> None:
    """Kill the processes of a run, until there are no more."""
    deadline = time.monotonic() + PATIENCE
    # Those that were just forking have children a moment later.
    while (found := [pid for pid in members(folder) if _alive(pid)]) and (
        time.monotonic() < deadline
    ):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    """Tell whether a process is more than an entry that waits for its parent."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def unmount(folder: str) -> None:
    """Unmount everything below a folder, the latest first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    # Blanks in names are escaped; no folder of the tests has one.
    for place in reversed([line.split()[1] for line in lines]):
        if _inside(place, folder):
            for program in (["umount", "--lazy"], ["fusermount", "-u", "-z"]):
                done = subprocess.run([*program, place], capture_output=True, check=False)
                if done.returncode == 0:
                    break


def detach(folder: str) -> None:
    """Let go of the loop devices whose files lie below a folder."""
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if _inside(device.read_text().removesuffix(" (deleted)\n").strip(), folder):
                name = device.parents[1].name
                subprocess.run(["losetup", "-d", f"/dev/{name}"], capture_output=True, check=False)


def main() -> None:
    """Wait for the end of a run, and remove what it has left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pid, folder = sys.argv[1:]
    wait_for_end(int(pid))
    kill_all(folder)
    unmount(folder)
    detach(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
