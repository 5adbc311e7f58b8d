# SPDX-License-Identifier: Apache-2.0
"""Interrupts of the calling thread before any line of some modules, and of the main thread."""

from __future__ import annotations

import linecache
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

from .memory import PATIENCE


class Interrupts:
    """Raise KeyboardInterrupt in the code of some modules, as often as numbers are given.

    :param modules: whose code
    :param lines: lines that are run before the first interrupt, then before the next
    """

    def __init__(self, modules: list[ModuleType], *lines: int) -> None:
        self._files = {module.__file__ for module in modules}
        self._lines = list(lines)
        self._over = False
        self.raised = 0

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename not in self._files or self._is_deaf(frame):
            return None
        # A with statement shows its line again just before it ends. No interrupt comes there: the
        # interpreter ends it in one bytecode.
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and self._lines and not text.lstrip().startswith("with "):
            self._lines[0] -= 1
            if self._lines[0] < 0:
                self._lines.pop(0)
                self.raised += 1
                raise KeyboardInterrupt
        return self._trace

    def _is_deaf(self, frame: FrameType | None) -> bool:
        # The interpreter reports what __del__ raises, and goes on.
        while frame is not None:
            if frame.f_code.co_name == "__del__":
                return True
            frame = frame.f_back
        return False

    def _profile(self, frame: FrameType, _event: str, _argument: object) -> None:
        """Trace again: an exception ends it."""
        if sys.gettrace() is None and self._lines and not self._over:
            sys.settrace(self._trace)
            above: FrameType | None = frame
            while above is not None:
                if above.f_code.co_filename in self._files:
                    above.f_trace = self._trace
                above = above.f_back

    def __enter__(self) -> Interrupts:  # noqa: PYI034 - typing.Self came with Python 3.11
        self._previous = sys.gettrace(), sys.getprofile()
        sys.setprofile(self._profile)
        sys.settrace(self._trace)
        return self

    def stop(self) -> None:
        """Raise no more."""
        self._over = True
        sys.setprofile(self._previous[1])
        sys.settrace(self._previous[0])

    def __exit__(self, *_error: object) -> None:
        self.stop()


class Signals:
    """Interrupts the main thread from others, one interrupt at a time.

    :param before: called in the main thread before each of them
    """

    def __init__(self, before: Callable[[], object] = bool) -> None:
        self._before = before
        self._asked: list[None] = []
        self._arrived = threading.Semaphore(0)
        # Of two signals that come at once, the process sees one.
        self._alone = threading.Lock()

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        try:
            self._asked.pop()
        except IndexError:
            # Sent once more than was necessary.
            return
        self._before()
        self._arrived.release()
        raise KeyboardInterrupt

    def interrupt(self) -> None:
        """Have KeyboardInterrupt raised in the main thread, and wait until it is."""
        main = threading.main_thread().ident
        assert main is not None
        deadline = time.monotonic() + PATIENCE
        with self._alone:
            self._asked.append(None)
            signal.pthread_kill(main, signal.SIGINT)
            # A signal that comes just before the system call of a lock does not interrupt it.
            while not self._arrived.acquire(timeout=0.05):
                assert time.monotonic() < deadline, "the main thread was never interrupted"
                signal.pthread_kill(main, signal.SIGINT)

    def __enter__(self) -> Signals:  # noqa: PYI034 - typing.Self came with Python 3.11
        self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_error: object) -> None:
        signal.signal(signal.SIGINT, self._previous)
