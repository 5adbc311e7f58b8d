# SPDX-License-Identifier: Apache-2.0
"""Several uploads of one id, and uploads whose process is killed."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from glance_store import exceptions
from tests.drivers.file.conftest import MakeStore, listing, put

MIB = 1024 * 1024


class StartTogether(io.BytesIO):
    """Holds its first read back until all the others are there as well."""

    def __init__(self, data: bytes, barrier: threading.Barrier) -> None:
        super().__init__(data)
        self._barrier: threading.Barrier | None = barrier

    def read(self, size: int | None = -1) -> bytes:
        barrier, self._barrier = self._barrier, None
        if barrier is not None:
            barrier.wait(60)
        return super().read(size)


def contents(number: int) -> bytes:
    return random.Random(number).randbytes(2 * MIB + number)


@pytest.mark.parametrize("several_directories", [False, True])
def test_one_of_16_threads_wins(
    make_store: MakeStore, tmp_path: Path, several_directories: bool
) -> None:
    options = (
        {"datadirs": [f"{tmp_path}/images", f"{tmp_path}/more"]} if several_directories else {}
    )
    store = make_store(**options)
    barrier = threading.Barrier(16)
    outcomes: dict[int, object] = {}

    def upload(number: int) -> None:
        data = contents(number)
        try:
            outcomes[number] = store.add("image", StartTogether(data, barrier), 0, "sha512")
        except exceptions.GlanceStoreException as exc:
            outcomes[number] = exc

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for number, outcome in outcomes.items() if isinstance(outcome, tuple)]
    losers = [outcome for outcome in outcomes.values() if not isinstance(outcome, tuple)]
    assert len(winners) == 1
    assert [type(outcome) for outcome in losers] == [exceptions.Duplicate] * 15
    [path] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert path.name == "image"
    assert path.read_bytes() == contents(winners[0])


def _upload(make: MakeStore, number: int, barrier: object, results: object) -> None:
    store = make()
    try:
        store.add("image", StartTogether(contents(number), barrier), 0, "sha512")  # type: ignore[arg-type]
        results.put((number, "won"))  # type: ignore[attr-defined]
    except exceptions.GlanceStoreException as exc:
        results.put((number, type(exc).__name__))  # type: ignore[attr-defined]


def test_one_of_4_processes_wins(make_store: MakeStore, tmp_path: Path) -> None:
    processes = multiprocessing.get_context("fork")
    barrier, results = processes.Barrier(4), processes.Queue()
    running = [
        processes.Process(target=_upload, args=(make_store, number, barrier, results))
        for number in range(4)
    ]
    for process in running:
        process.start()
    outcomes = dict(results.get(timeout=60) for _process in running)
    for process in running:
        process.join()
    assert sorted(outcomes.values()) == ["Duplicate"] * 3 + ["won"]
    [winner] = [number for number, outcome in outcomes.items() if outcome == "won"]
    assert (tmp_path / "images" / "image").read_bytes() == contents(winner)
    assert listing(tmp_path / "images") == ["image"]


UPLOADER = """
import hashlib, sys
from oslo_config import cfg
from glance_store._drivers.filesystem import Store

class Source:
    left = 24

    def read(self, size):
        if not self.left:
            return b""
        self.left -= 1
        return block

block = bytes(range(256)) * 4096
conf = cfg.ConfigOpts()
store = Store(conf, "files")
conf.set_override("filesystem_store_datadir", sys.argv[1], group="files")
store.configure()
sys.stdout.write("ready\\n")
sys.stdout.flush()
while True:
    sys.stdin.readline()
    Source.left = 24
    store.add("image", Source(), int(sys.argv[2]), "sha512")
    sys.stdout.write("done\\n")
    sys.stdout.flush()
"""
WHOLE = bytes(range(256)) * 4096 * 24


def kill_during_an_upload(directory: Path, size: int, delay: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", UPLOADER, str(directory), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.stdin.write(b"go\n")
    process.stdin.flush()
    killer = threading.Timer(delay, process.send_signal, (signal.SIGKILL,))
    killer.start()
    process.stdout.readline()
    killer.cancel()
    process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("unnamed", [True, False])
def test_a_killed_upload_is_never_a_partial_image(
    request: pytest.FixtureRequest, tmp_path: Path, unnamed: bool
) -> None:
    """50 uploads, killed at random moments from the first byte to beyond the last one."""
    directory = tmp_path / "images"
    if not unnamed:
        directory = request.getfixturevalue("without_tmpfile")
    directory.mkdir(exist_ok=True)
    seed = int.from_bytes(os.urandom(4), "big")
    moments = random.Random(seed)
    complete = hashlib.sha256(WHOLE).digest()
    partial = 0
    for number in range(50):
        kill_during_an_upload(directory, (0, len(WHOLE))[number % 2], moments.uniform(0.0, 0.15))
        for name in listing(directory):
            path = directory / name
            if name == "image":
                assert hashlib.sha256(path.read_bytes()).digest() == complete, seed
            else:
                assert not unnamed, f"{name} is left behind, seed {seed}"
                assert name.endswith(".partial"), seed
                partial += 1
            path.unlink()
    # Otherwise no kill has met an upload, and nothing was shown.
    assert partial or unnamed, seed


def test_an_upload_after_a_killed_one_succeeds(make_store: MakeStore, tmp_path: Path) -> None:
    directory = tmp_path / "images"
    directory.mkdir()
    kill_during_an_upload(directory, 0, 0.02)
    for name in listing(directory):
        (directory / name).unlink()
    put(make_store(), "image", WHOLE)
    assert (directory / "image").read_bytes() == WHOLE
