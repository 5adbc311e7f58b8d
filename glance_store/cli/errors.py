# SPDX-License-Identifier: Apache-2.0
"""The error messages and exit codes of the command."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator

from oslo_config import cfg

from glance_store import exceptions
from glance_store.location import one_line

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3


class UsageError(Exception):
    """The command line or the configuration is wrong; nothing was done."""


class SourceChangedError(Exception):
    """Somebody wrote to the file while it was being stored; nothing of it is stored."""


class OutputClosedError(Exception):
    """The reader of standard output is gone."""


class TerminatedError(BaseException):
    """A signal ends the command; clean-up runs as for any exception."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


# The first match decides.
_EXIT_CODES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], int], ...] = (
    (exceptions.NotFound, NOT_FOUND),
    # Some outages are also a BadStoreUri or a BadStoreConfiguration.
    (exceptions.RemoteServiceUnavailable, FAILED),
    (
        (
            UsageError,
            cfg.Error,
            exceptions.BadStoreUri,
            exceptions.UnknownScheme,
            exceptions.UnknownHashingAlgo,
            exceptions.BadStoreConfiguration,
            exceptions.DriverLoadFailure,
        ),
        USAGE,
    ),
    (KeyboardInterrupt, 128 + signal.SIGINT),
    (OutputClosedError, 128 + signal.SIGPIPE),
)

_EXPECTED = (
    UsageError,
    SourceChangedError,
    exceptions.GlanceStoreException,
    exceptions.BackendException,
    OSError,
)


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """Name the file in errors of calls on its descriptor."""
    try:
        yield
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, path) from exc


@contextlib.contextmanager
def writing_output() -> Iterator[None]:
    """Name standard output in errors; OutputClosedError if its reader is gone."""
    try:
        with named("standard output"):
            yield
    except BrokenPipeError as exc:
        raise OutputClosedError from exc


def exit_code(exc: BaseException) -> int:
    """Return the exit code for an exception that ends the command."""
    if isinstance(exc, TerminatedError):
        return 128 + exc.signum
    for kinds, code in _EXIT_CODES:
        if isinstance(exc, kinds):
            return code
    return FAILED


def describe(exc: BaseException) -> str:
    """Describe an exception for an operator, in one line and without secrets."""
    if isinstance(exc, KeyboardInterrupt):
        return "interrupted"
    if isinstance(exc, TerminatedError):
        return f"ended by signal {signal.Signals(exc.signum).name}"
    if isinstance(exc, cfg.ConfigFileParseError):
        return _parse_error(exc)
    if isinstance(exc, cfg.ConfigFilesNotFoundError):
        return one_line(f"there is no configuration file {', '.join(exc.config_files)}")
    if isinstance(exc, cfg.Error):
        # oslo.config shows where a value comes from as the repr of an object.
        text = re.sub(r"LocationInfo\(.*?detail='(.*?)'\)", r"\1", str(exc))
        return one_line(f"the configuration is wrong: {text}")
    if isinstance(exc, OSError) and exc.strerror:
        return one_line(f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror)
    if isinstance(exc, exceptions.RedirectException):
        return one_line(f"fetch the image from {exc.url.geturl()} instead")
    text = one_line(exc)
    if isinstance(exc, _EXPECTED) and text:
        return text
    return one_line(f"{type(exc).__name__}: {text} (--debug shows a traceback)")


def _parse_error(exc: cfg.ConfigFileParseError) -> str:
    # The message of oslo.config quotes the line, which may contain a password.
    cause = exc.__context__
    line, reason = getattr(cause, "lineno", None), getattr(cause, "msg", None)
    if line is None:
        return one_line(f"the configuration file {exc.config_file} cannot be parsed")
    return one_line(
        f"the configuration file {exc.config_file} is malformed at line {line}: {reason}"
    )


def printable(text: str) -> str:
    """Escape the characters of a text that a terminal cannot show in one line."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
