# SPDX-License-Identifier: Apache-2.0
"""Processes of a service that tests may freeze, kill and start again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.services.base import Service


class Daemon:
    """A process of a service, which tests may freeze, kill and start again.

    :param service: that it belongs to
    :param command: starts it in the foreground
    """

    def __init__(self, service: Service, command: Sequence[str | Path]) -> None:
        self._service = service
        self.command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id; None when it does not run."""
        return None if self._process is None else self._process.pid

    def __getstate__(self) -> dict[str, Any]:
        """Leave the process to the one that has started it."""
        return {**self.__dict__, "_process": None}

    def start(self) -> None:
        """Start it unless it runs; it may not be ready yet."""
        self._require_owner()
        if self._process is None:
            self._process = self._service.run(self.command)

    def freeze(self) -> None:
        """Let it answer nothing any more, as a host does that hangs; connections stay open."""
        self._signal(signal.SIGSTOP)
        # It is stopped some time after the signal, and could answer until then.
        if self._process is not None:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, frozen or not."""
        self._signal(signal.SIGKILL)
        process, self._process = self._process, None
        if process is not None:
            process.wait()
            self._service.processes.remove(process)

    def _require_owner(self) -> None:
        """Keep a test from hurting servers that other tests are using."""
        if self._service.shared:
            raise RuntimeError(
                f"{self._service.name} runs for other tests as well: take a lab of your own"
            )

    def _signal(self, number: signal.Signals) -> None:
        self._require_owner()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
