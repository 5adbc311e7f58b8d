# SPDX-License-Identifier: Apache-2.0
"""Processes that are measured: workers, fresh interpreters, and other programs."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import worker
from bench.worker import KIB, MIB, Measurement, Task

if TYPE_CHECKING:
    from bench.environments import Environment


# Longer than any measurement takes on a slow machine.
PATIENCE = 1800

_IMPORT = """
import time
cpu, wall = time.process_time(), time.perf_counter()
import {modules}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def _nothing() -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Contender:
    """Measures once each time it is called; ``prepare`` is called before, once."""

    measure: Callable[[], Measurement]
    prepare: Callable[[], None] = _nothing


class MeasurementError(Exception):
    """A measurement did not come about, or the contenders did not do the same work."""


@dataclasses.dataclass(frozen=True)
class Workers:
    """Starts workers in the environments.

    :param variables: of the environment, besides those of this process
    :param verbose: show what failing ones of this repository wrote
    """

    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    verbose: bool = False

    def measure(self, environment: Environment, task: Task) -> Measurement:
        """Have ``task`` done in a new process of ``environment``."""
        return Measurement(**self.call(environment, task))

    def call(self, environment: Environment, task: Task) -> Any:
        """Have ``task`` done in a new process of ``environment``; return what it tells."""
        command = [environment.python, "-I", worker.__file__]
        done = _run(
            command,
            input=json.dumps(dataclasses.asdict(task)),
            env={**os.environ, **self.variables},
        )
        if done.returncode:
            if self.verbose and environment.ours:
                sys.stderr.write(done.stderr)
            raise MeasurementError(_last_line(done))
        return json.loads(done.stdout.splitlines()[-1])


def import_time(environment: Environment, modules: str) -> Measurement:
    """Return how long a fresh interpreter takes to import ``modules``, its own start excluded."""
    output = _output([environment.python, "-I", "-c", _IMPORT.format(modules=modules)])
    seconds, cpu_seconds = map(float, output.split())
    return Measurement(seconds, cpu_seconds, 0)


def dd(source: str, target: Path) -> Measurement:
    """Copy ``source`` with dd to a durable ``target``, which is removed afterwards."""
    start = time.perf_counter()
    _output(["dd", f"if={source}", f"of={target}", "bs=1M", "conv=fsync", "status=none"])
    seconds = time.perf_counter() - start
    size = target.stat().st_size
    target.unlink()
    return Measurement(seconds, 0.0, size)


def program(command: Sequence[object], moved: int) -> Measurement:
    """Run another program.

    :param moved: bytes that it moves
    """
    busy, start = worker.busy_seconds(), time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        _pid, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise MeasurementError(f"{command[0]} ended with {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    others = max(0.0, worker.busy_seconds() - busy - cpu) / seconds
    return Measurement(seconds, cpu, moved, peak_rss=usage.ru_maxrss * KIB, others=others)


def check(command: Sequence[object]) -> None:
    """Run a program that prepares or cleans up."""
    _output(list(map(str, command)))


def write_source(path: str, size: int, content: str) -> None:
    """Write the source file: random, or one random MiB in sixteen and written zeros.

    That MiB is the first of the sixteen ("sparse"), or any of them ("scattered").
    """
    zeros = bytes(MIB)
    places = random.Random(size)
    chosen = 0
    with Path(path).open("wb") as file:
        for index in range(-(-size // MIB)):
            if index % 16 == 0:
                chosen = places.randrange(16) if content == "scattered" else 0
            is_data = content == "random" or index % 16 == chosen
            file.write(os.urandom(MIB) if is_data else zeros)
        file.truncate(size)


def _run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE, **options
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"took longer than {PATIENCE} s") from None


def _output(command: list[str]) -> str:
    done = _run(command)
    if done.returncode:
        raise MeasurementError(f"{' '.join(command)}: {_last_line(done)}")
    return done.stdout


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"ended with {done.returncode}"
