# SPDX-License-Identifier: Apache-2.0
"""What the command says and returns when something goes wrong."""

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
    """The command line or the configuration cannot be acted upon; nothing was done."""


class SourceChangedError(Exception):
    """Somebody writes to the file that is to be stored; nothing is left of what was read."""


class OutputClosedError(Exception):
    """Whoever reads the standard output has gone."""


class TerminatedError(BaseException):
    """A signal asks the command to end; clean-up runs as for an exception.

    :param signum: number of the signal
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


# The first line that fits decides.
_EXIT_CODES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], int], ...] = (
    (exceptions.NotFound, NOT_FOUND),
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
    """Name the file in errors of calls on a descriptor.

    :param path: of the file
    """
    try:
        yield
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, path) from exc


@contextlib.contextmanager
def writing_output() -> Iterator[None]:
    """Tell what is wrong with the standard output.

    :raises OutputClosedError: nobody reads it any more
    :raises OSError: it cannot be written
    """
    try:
        with named("standard output"):
            yield
    except BrokenPipeError as exc:
        raise OutputClosedError from exc


def exit_code(exc: BaseException) -> int:
    """Return the exit code of the command that ends with an exception.

    :param exc: the exception
    """
    if isinstance(exc, TerminatedError):
        return 128 + exc.signum
    for kinds, code in _EXIT_CODES:
        if isinstance(exc, kinds):
            return code
    return FAILED


def describe(exc: BaseException) -> str:
    """Return what an operator should read about an exception, in one line and without secrets.

    :param exc: the exception
    """
    if isinstance(exc, KeyboardInterrupt):
        return "interrupted"
    if isinstance(exc, TerminatedError):
        return f"ended by signal {signal.Signals(exc.signum).name}"
    if isinstance(exc, cfg.ConfigFileParseError):
        return _parse_error(exc)
    if isinstance(exc, cfg.ConfigFilesNotFoundError):
        return one_line(f"there is no configuration file {', '.join(exc.config_files)}")
    if isinstance(exc, cfg.Error):
        # oslo.config shows the place of a value as the repr of an object.
        text = re.sub(r"LocationInfo\(.*?detail='(.*?)'\)", r"\1", str(exc))
        return one_line(f"the configuration is wrong: {text}")
    if isinstance(exc, OSError) and exc.strerror:
        return one_line(f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror)
    if isinstance(exc, exceptions.RedirectException):
        return one_line(f"the image is to be fetched from {exc.url.geturl()}")
    text = one_line(str(exc))
    if isinstance(exc, _EXPECTED) and text:
        return text
    return one_line(f"{type(exc).__name__}: {text} (--debug shows where it comes from)")


def _parse_error(exc: cfg.ConfigFileParseError) -> str:
    # The text of oslo.config quotes the line, which may be the one with the password.
    cause = exc.__context__
    line, reason = getattr(cause, "lineno", None), getattr(cause, "msg", None)
    if line is None:
        return one_line(f"the configuration file {exc.config_file} cannot be parsed")
    return one_line(
        f"the configuration file {exc.config_file} is malformed at line {line}: {reason}"
    )


def printable(text: str) -> str:
    """Return a text, such as the name of a file, as it can stand in a line for a terminal.

    :param text: any text
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
