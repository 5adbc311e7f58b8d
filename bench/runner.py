# SPDX-License-Identifier: Apache-2.0
"""Runs the contenders of a scenario in turn, each measurement in a fresh process."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench import worker
from bench.scenarios import Result, Scenario
from bench.worker import MIB, Measurement, Task

if TYPE_CHECKING:
    from bench.environments import Environment

Contender = Callable[[], Measurement]

_IMPORT = """
import time
cpu, wall = time.process_time(), time.perf_counter()
import {modules}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


class MeasurementError(Exception):
    """A measurement did not come about, or the contenders did not do the same work."""


@dataclasses.dataclass
class Runner:
    """Measures scenarios in scratch folders below ``places`` ("tmpfs" and "disk")."""

    reference: Environment
    current: Environment
    places: dict[str, str]
    rounds: int

    def run(self, scenario: Scenario) -> Result:
        place = Path(self.places[scenario.place])
        place.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix="bench-", dir=self.places["tmpfs"]) as sources,
            tempfile.TemporaryDirectory(prefix="bench-", dir=place) as images,
        ):
            contenders = self._contenders(scenario, Path(sources), Path(images))
            if scenario.task:
                # Memory that nobody has used yet costs the first user of it extra, in a virtual
                # machine above all: this turn pays for it, and does not count.
                take_turns(contenders, 1)
            measurements = take_turns(contenders, scenario.turns(self.rounds))
        digests = {
            each.digest for series in measurements.values() for each in series if each.digest
        }
        if len(digests) > 1:
            raise MeasurementError(f"{scenario.name}: the contenders returned different checksums")
        return Result(scenario, measurements)

    def _contenders(self, scenario: Scenario, sources: Path, images: Path) -> dict[str, Contender]:
        if scenario.task is None:
            return {
                "reference": lambda: import_time(self.reference, "glance_store"),
                "current": lambda: import_time(self.current, "glance_store"),
                "dependencies": lambda: import_time(self.current, "oslo_config.cfg, stevedore"),
            }
        task = dataclasses.replace(scenario.task, datadir=str(images))
        if task.source in {"file", "network"}:
            task = dataclasses.replace(task, path=str(sources / scenario.content))
            write_source(task.path, task.size, scenario.content)
        contenders: dict[str, Contender] = {
            "reference": lambda: call_worker(self.reference, task),
            "current": lambda: call_worker(self.current, task),
        }
        if scenario.place == "disk":
            contenders["dd conv=fsync"] = lambda: dd(task.path, images / "dd")
            return {label: after_sync(contender) for label, contender in contenders.items()}
        return contenders


def take_turns(contenders: dict[str, Contender], turns: int) -> dict[str, list[Measurement]]:
    """Let each contender measure ``turns`` times, A B, B A, A B ...: drift then hits all alike."""
    series: dict[str, list[Measurement]] = {label: [] for label in contenders}
    for turn in range(turns):
        for label in list(contenders)[:: -1 if turn % 2 else 1]:
            series[label].append(contenders[label]())
    return series


def after_sync(contender: Contender) -> Contender:
    """Return a contender that does not pay for what others left unwritten."""

    def synced() -> Measurement:
        os.sync()
        return contender()

    return synced


def call_worker(environment: Environment, task: Task) -> Measurement:
    """Have ``task`` done in a new process of ``environment``."""
    output = _output(
        [environment.python, "-I", worker.__file__, json.dumps(dataclasses.asdict(task))]
    )
    return Measurement(**json.loads(output.splitlines()[-1]))


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


def write_source(path: str, size: int, content: str) -> None:
    """Write the source file: random, or ("sparse") one random MiB in sixteen and written zeros."""
    zeros = bytes(MIB)
    with Path(path).open("wb") as file:
        for index in range(size // MIB):
            is_data = content == "random" or index % 16 == 0
            file.write(os.urandom(MIB) if is_data else zeros)


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MeasurementError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    if done.stderr:
        sys.stderr.write(done.stderr)
    return done.stdout
