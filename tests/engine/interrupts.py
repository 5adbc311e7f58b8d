# SPDX-License-Identifier: Apache-2.0
"""Interrupts of the calling thread, before any line of some modules."""

from __future__ import annotations

import linecache
import sys
from types import FrameType, ModuleType
from typing import Any


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
