# SPDX-License-Identifier: Apache-2.0
"""What the command prints: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from glance_store.cli.errors import describe, printable, writing_output
from glance_store.location import one_line, without_secrets

# A smaller transfer is over before a bar can be read.
PROGRESS_BYTES = 16 * 1024 * 1024
# A transfer of unknown size gets a bar after this many seconds.
_PROGRESS_DELAY = 1.0

_DEFAULT_WIDTH, _DEFAULT_HEIGHT = 80, 24
# The narrowest width to wrap a column to, however narrow the terminal.
_NARROWEST = 20

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def human_size(size: int) -> str:
    """Format a number of bytes exactly and in a readable unit."""
    short = short_size(size)
    return short if size < 1024 else f"{size} bytes ({short})"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def short_size(size: int) -> str:
    """Format a number of bytes in a readable unit."""
    value, unit = float(size), _UNITS[0]
    for larger in _UNITS[1:]:
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{size} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def _columns(stream: TextIO | None) -> int:
    """Return the width of a terminal, 0 if it is unknown or there is no terminal."""
    try:
        return os.get_terminal_size(stream.fileno()).columns if stream is not None else 0
    except (OSError, ValueError):
        return 0


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


class Progress:
    """Counts the bytes of a transfer, and shows them if it has a bar."""

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar

    def add(self, length: int) -> None:
        """Count `length` more bytes."""
        if self._bar is not None:
            self._bar.update(length)


class ProgressReader:
    """A source that counts the bytes read from it."""

    def __init__(self, source: Any, progress: Progress) -> None:
        self._source = source
        self._progress = progress

    def read(self, length: int) -> Any:
        """Read up to `length` bytes."""
        data = self._source.read(length)
        self._progress.add(len(data))
        return data


class Output:
    """Prints results and errors, as text or JSON; `quiet` leaves out everything else."""

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet

    def write(self, text: str) -> None:
        """Print a line on standard output; OutputClosedError if its reader is gone."""
        stream = sys.stdout
        if stream is None:
            return
        encoding = getattr(stream, "encoding", None) or "utf-8"
        # A file name may contain characters that the terminal's encoding lacks.
        line = text.encode(encoding, "backslashreplace").decode(encoding)
        with writing_output(), _beside_bar(stream):
            stream.write(line + "\n")

    def flush(self) -> None:
        """Flush standard output; OutputClosedError if its reader is gone."""
        if sys.stdout is not None:
            with writing_output():
                sys.stdout.flush()

    def fields(self, values: Mapping[str, Any], text: Mapping[str, str] | None = None) -> None:
        """Print one result; `text` has readable forms of some values."""
        if self.as_json:
            self.write(json.dumps(values, indent=2))
            return
        shown = {**{name: _as_text(value) for name, value in values.items()}, **(text or {})}
        width = max(len(name) for name in shown) + 1
        for name, value in shown.items():
            if value:
                self.write(f"{name + ':':<{width}} {value}")

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """Print a list of results: `columns` of them as a table, or all as JSON."""
        if self.as_json:
            self.write(json.dumps(list(rows), indent=2))
            return
        # Imported here, so that commands without tables start faster.
        import prettytable

        table = prettytable.PrettyTable([name.replace("_", " ") for name in columns])
        table.align = "l"
        for row in rows:
            table.add_row([_as_text(row[name]) for name in columns])
        _fit(table)
        self.write(table.get_string())

    def note(self, text: str) -> None:
        """Tell a person what was done; scripts read the result instead."""
        if not self.quiet and not self.as_json:
            self.write(printable(text))

    def warn(self, text: str) -> None:
        """Print a warning on standard error."""
        _stderr(f"glance-store: warning: {one_line(text)}")

    def error(self, exc: BaseException) -> None:
        """Print an error on standard error, in one line."""
        text = describe(exc)
        if self.as_json:
            _stderr(json.dumps({"error": text, "kind": type(exc).__name__}))
        else:
            _stderr(f"glance-store: error: {text}")

    def confirm(self, question: str) -> bool:
        """Ask a person at the terminal, and return whether the answer is yes."""
        if sys.stderr is not None:
            sys.stderr.write(question)
            sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    @contextlib.contextmanager
    def progress(self, what: str, size: int) -> Iterator[Progress]:
        """Show a progress bar during a long transfer, on a terminal."""
        if self.quiet or not _is_terminal(sys.stderr) or 0 < size < PROGRESS_BYTES:
            yield Progress()
            return
        import tqdm

        width = _columns(sys.stderr)
        # Every update is checked (miniters), so tqdm's monitor thread has no use.
        tqdm.tqdm.monitor_interval = 0
        with tqdm.tqdm(
            total=size or None,
            desc=what,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            miniters=1,
            # A terminal without a size, as in containers: tqdm would draw nothing.
            dynamic_ncols=bool(width),
            ncols=None if width else _DEFAULT_WIDTH,
            nrows=None if width else _DEFAULT_HEIGHT,
            delay=0 if size else _PROGRESS_DELAY,
            file=sys.stderr,
        ) as bar:
            yield Progress(bar)


def _fit(table: Any) -> None:
    """Wrap the last column of a table at the edge of the terminal."""
    columns = _columns(sys.stdout)
    if not columns:
        # Do not wrap in a pipe: grep and the like need whole lines.
        return
    last = table.field_names[-1]
    others = len(table.get_string(fields=table.field_names[:-1]).partition("\n")[0])
    table.max_width[last] = max(len(last), _NARROWEST, columns - others - len(" ") * 2 - len("|"))


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items())
    return printable(str(value))


@contextlib.contextmanager
def _beside_bar(stream: TextIO) -> Iterator[None]:
    """Move a progress bar out of the way while a line is printed."""
    if "tqdm" in sys.modules and _is_terminal(stream):
        with sys.modules["tqdm"].tqdm.external_write_mode(file=stream):
            yield
            stream.flush()
    else:
        yield


def _stderr(line: str) -> None:
    if sys.stderr is None:
        return
    # If standard error is closed too, nobody is left to tell.
    with contextlib.suppress(OSError):
        with _beside_bar(sys.stderr):
            sys.stderr.write(line + "\n")
        sys.stderr.flush()


class _LineFormatter(logging.Formatter):
    """Formats a log record as one line, like the command's own warnings."""

    def format(self, record: logging.LogRecord) -> str:
        return f"glance-store: {record.levelname.lower()}: {one_line(record.getMessage())}"


class _DebugFormatter(logging.Formatter):
    """Formats a log record with its origin and traceback, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class LogPrinter(logging.Handler):
    """Prints log records beside a progress bar; without `repeat`, each line once."""

    def __init__(self, repeat: bool) -> None:
        super().__init__()
        self._repeat = repeat
        self._printed: set[str] = set()
        self._held: list[str] = []
        self.holds = False

    def print_held(self) -> None:
        """Print the lines held back while `holds` was set."""
        for line in self._held:
            _stderr(line)
        self._held = []
        self.holds = False

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, or hold it back for `print_held`."""
        try:
            line = self.format(record)
            if self._repeat or line not in self._printed:
                self._printed.add(line)
                if self.holds:
                    self._held.append(line)
                else:
                    _stderr(line)
        except Exception:  # noqa: BLE001 - logging's own way to report a broken log call
            self.handleError(record)


# Libraries that repeat what the command itself reports.
_REPETITIVE = ("stevedore", "oslo_config")


@contextlib.contextmanager
def logging_to_stderr(debug: bool, silent: bool = False) -> Iterator[LogPrinter]:
    """Print warnings on standard error during a command; with `debug`, all log records."""
    handler = LogPrinter(repeat=debug)
    handler.setFormatter(
        _DebugFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        if debug
        else _LineFormatter()
    )
    # Client libraries stay at warnings: their debug records show tokens and signatures.
    levels = {"": logging.WARNING, "glance_store": logging.DEBUG if debug else logging.NOTSET}
    if silent and not debug:
        levels["glance_store"] = logging.CRITICAL
    if not debug:
        levels.update(dict.fromkeys(_REPETITIVE, logging.CRITICAL))
    before = {name: logging.getLogger(name).level for name in levels}
    root = logging.getLogger()
    root.addHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
