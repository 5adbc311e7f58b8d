# SPDX-License-Identifier: Apache-2.0
"""Runs the command as an operator does: in a process, with or without a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import random
import select
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024

BASE = [sys.executable, "-m", "glance_store.cli"]


@dataclass
class Result:
    """What a run of the command has left; bytes are those of the standard output."""

    code: int
    data: bytes
    err: str

    @property
    def out(self) -> str:
        return self.data.decode()

    @property
    def json(self):
        return json.loads(self.data)


class Command:
    """The command with a configuration file of its own.

    :param config: path of the configuration file, None to name none
    """

    def __init__(self, config: Path | None = None) -> None:
        self.words = [*BASE, *([] if config is None else [f"--config-file={config}"])]

    def __call__(self, *words, stdin=subprocess.DEVNULL, data=None, **options) -> Result:
        given = {"input": data} if data is not None else {"stdin": stdin}
        process = subprocess.run(
            [*self.words, *map(str, words)],
            check=False,
            capture_output=True,
            timeout=60,
            **given,
            **options,
        )
        return Result(process.returncode, process.stdout, process.stderr.decode())

    def start(self, *words, **options) -> subprocess.Popen:
        return subprocess.Popen([*self.words, *map(str, words)], **options)

    def on_terminal(self, *words, answer: str = "", columns: int = 80) -> Result:
        """Run the command with a terminal for all that it reads and writes."""
        master, slave = terminal(columns)
        process = subprocess.Popen(
            [*self.words, *map(str, words)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        if answer:
            os.write(master, answer.encode() + b"\n")
        seen = bytearray()
        # The terminal ends with an error when its last user has gone.
        with contextlib.suppress(OSError):
            while select.select([master], [], [], 60)[0]:
                seen += os.read(master, 65536)
        os.close(master)
        return Result(process.wait(60), bytes(seen), "")


def terminal(columns: int = 80) -> tuple[int, int]:
    """Open a terminal; return the descriptor of its screen and that for programs.

    :param columns: 0 for a terminal that does not know its size
    """
    master, slave = pty.openpty()
    rows = 24 if columns else 0
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    return master, slave


def image(path: Path, size: int, seed: int = 1) -> Path:
    """Write a file like a raw disk: data at both ends, zeros in the middle."""
    generator = random.Random(seed)
    edge = min(size // 2, MIB)
    with path.open("wb") as file:
        file.write(generator.randbytes(edge))
        file.truncate(size - edge)
        file.seek(size - edge)
        file.write(generator.randbytes(edge))
    return path


def one_line_error(result: Result) -> str:
    """Return the only line of the standard error, which must be an error."""
    assert "Traceback" not in result.err
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("glance-store: error: ")
    return lines[0].removeprefix("glance-store: error: ")
