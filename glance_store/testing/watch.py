# SPDX-License-Identifier: Apache-2.0
"""Watches whether a driver shows secrets in log lines, errors or reprs."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

_SHOWN = 300


class Watch(logging.Handler):
    """A log handler that finds secrets, ignoring case, in log lines and other texts."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__(logging.NOTSET)
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        self._secrets = [secret.casefold() for secret in secrets]
        self._texts_lock = threading.Lock()
        self._shown: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Check a log line and its traceback."""
        self._look_at("a log line", self.format(record))

    def note_error(self, error: BaseException) -> None:
        """Check an error, and the errors that a traceback would show with it."""
        shown: BaseException | None = error
        seen: set[int] = set()
        # An error can be its own cause.
        while shown is not None and id(shown) not in seen:
            seen.add(id(shown))
            notes = getattr(shown, "__notes__", ())
            for text in (str(shown), repr(shown), *map(str, notes)):
                self._look_at("an exception", text)
            if shown.__cause__ is not None or shown.__suppress_context__:
                shown = shown.__cause__
            else:
                shown = shown.__context__

    def note_object(self, shown: Any) -> None:
        """Check the repr and the str of an object."""
        for text in (repr(shown), str(shown), f"{shown}"):
            self._look_at(f"the repr of {type(shown).__name__}", text)

    def _look_at(self, what: str, text: str) -> None:
        folded = text.casefold()
        if any(secret in folded for secret in self._secrets):
            with self._texts_lock:
                self._shown.append(f"{what}: {text[:_SHOWN]}")

    def check(self) -> None:
        """Fail if a secret has been shown since the last call."""
        __tracebackhide__ = True
        with self._texts_lock:
            shown, self._shown = self._shown, []
        if shown:
            pytest.fail("Secret shown in " + "\n".join(dict.fromkeys(shown)))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Receive every log line of every logger within the block, from DEBUG up."""
        root = logging.getLogger()
        loggers = [
            logger
            for logger in (root, *root.manager.loggerDict.values())
            if isinstance(logger, logging.Logger)
        ]
        before = [(logger, logger.level, logger.disabled) for logger in loggers]
        disabled = root.manager.disable
        ears = [logger for logger in loggers if logger is root or not logger.propagate]
        logging.disable(logging.NOTSET)
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
            logger.disabled = False
        for logger in ears:
            logger.addHandler(self)
        try:
            yield
        finally:
            for logger in ears:
                logger.removeHandler(self)
            for logger, level, was_disabled in before:
                logger.setLevel(level)
                logger.disabled = was_disabled
            logging.disable(disabled)
