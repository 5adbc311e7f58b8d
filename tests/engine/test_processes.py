# SPDX-License-Identifier: Apache-2.0
"""The engine in the processes of an image service: pre-forked ones, and green ones."""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable

import pytest

from glance_store.transfer.digest import Digests
from glance_store.transfer.download import Download
from glance_store.transfer.upload import upload

from .memory import BLOCK, MemoryReader, MemoryWriter, pattern

DATA = pattern(20 * BLOCK + 5)
LONGEST = 60  # seconds until a process that hangs is ended


def transfer() -> None:
    writer = MemoryWriter(concurrency=3)
    upload(io.BytesIO(DATA), writer, Digests("sha512"), len(DATA))
    writer.check_stored(DATA)
    reader = MemoryReader(DATA, 3)
    assert b"".join(Download(reader, chunk_size=BLOCK)) == DATA
    reader.check_closed()


def run_in_fork(function: Callable[[], None]) -> int:
    """Run a function in a child process; return its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LONGEST)
        function()
        status = 0
    except BaseException:  # noqa: BLE001 - it must not get into the parent's code
        traceback.print_exc()
    finally:
        # No handler and no buffer of the parent may run twice.
        os._exit(status)


def test_a_child_transfers_after_its_parent_has() -> None:
    transfer()
    assert run_in_fork(transfer) == 0
    transfer()


def test_a_child_transfers_after_its_parent_has_failed() -> None:
    writer = MemoryWriter(concurrency=3, failures={3: OSError("broken")})
    with pytest.raises(OSError, match="broken"):
        upload(io.BytesIO(DATA), writer, Digests("sha512"))
    download = Download(MemoryReader(DATA, 3), chunk_size=BLOCK)
    next(download)
    download.close()
    assert run_in_fork(transfer) == 0


def test_a_child_that_fails_is_noticed() -> None:
    def fail() -> None:
        os._exit(7)

    assert run_in_fork(fail) == 7


def test_threads_patched_by_eventlet() -> None:
    if importlib.util.find_spec("eventlet") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("eventlet is not installed: pip install eventlet")
        pytest.skip("eventlet is not installed")
    script = os.path.join(os.path.dirname(__file__), "eventlet_process.py")
    # Without -W error: eventlet warns of its own end.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    process = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
        env=environment,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip().endswith("all is well")
