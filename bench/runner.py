# SPDX-License-Identifier: Apache-2.0
"""Runs the contenders of a scenario in turn, each measurement in a fresh process."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bench.contenders import (
    Contender,
    MeasurementError,
    Workers,
    import_time,
    write_source,
)
from bench.model import CURRENT, REFERENCE, Result, Scenario
from bench.worker import Measurement, Task

if TYPE_CHECKING:
    from bench.beds.base import Bed
    from bench.environments import Environment


@dataclasses.dataclass
class Runner:
    """Measures scenarios of a test bed in scratch folders below ``places`` ("tmpfs" and "disk").

    :param scale: by which sizes were multiplied
    :param verbose: show what failing workers of this repository wrote
    """

    reference: Environment
    current: Environment
    places: dict[str, str]
    rounds: int
    bed: Bed
    scale: float = 1.0
    verbose: bool = False

    def run(self, scenario: Scenario) -> Result:
        with contextlib.ExitStack() as stack:
            place = Path(self.places.get(scenario.place, self.places["tmpfs"]))
            place.mkdir(parents=True, exist_ok=True)
            sources, images = (
                Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=folder)))
                for folder in (self.places["tmpfs"], place)
            )
            self.bed.start(scenario)
            turns = Turns(self._contenders(scenario, sources, images, stack))
            turns.prepare()
            if scenario.task and scenario.warm:
                # Memory that nobody has used yet costs the first user of it extra, in a virtual
                # machine above all: this turn pays for it, and does not count.
                turns.take(1)
            measurements = turns.take(scenario.turns(self.rounds))
        digests = {
            each.digest for series in measurements.values() for each in series if each.digest
        }
        if len(digests) > 1:
            turns.failures["checksums"] = "the contenders returned different ones"
        return Result(scenario, measurements, turns.failures)

    def _contenders(
        self, scenario: Scenario, sources: Path, images: Path, stack: contextlib.ExitStack
    ) -> dict[str, Contender]:
        if scenario.task is None:
            return {
                label: Contender(functools.partial(import_time, environment, modules))
                for label, environment, modules in (
                    (REFERENCE, self.reference, "glance_store"),
                    (CURRENT, self.current, "glance_store"),
                    ("dependencies", self.current, "oslo_config.cfg, stevedore"),
                )
            }
        task = dataclasses.replace(scenario.task, **self.bed.basis(scenario, images))
        if task.source in {"file", "network"}:
            task = dataclasses.replace(task, path=str(sources / scenario.content))
            write_source(task.path, task.size, scenario.content)
        sides = {REFERENCE: self.reference, CURRENT: self.current}
        sides.update((label, self.current) for label in scenario.options if label not in sides)
        if scenario.alone:
            del sides[REFERENCE]
        contenders = {
            label: self._side(scenario, label, environment, task, stack)
            for label, environment in sides.items()
        }
        if scenario.rivals:
            rivals = self.bed.rivals(scenario, task, images, self.current, stack)
            contenders.update((label, rivals[label]) for label in scenario.rivals)
        return {
            label: self._around(scenario, label, contender)
            for label, contender in contenders.items()
        }

    def _around(self, scenario: Scenario, label: str, contender: Contender) -> Contender:
        def prepare() -> None:
            self.bed.ready(scenario, label)
            contender.prepare()

        return Contender(self.bed.around(scenario, label, contender.measure), prepare)

    def _side(
        self,
        scenario: Scenario,
        label: str,
        environment: Environment,
        task: Task,
        stack: contextlib.ExitStack,
    ) -> Contender:
        """Return one side of a scenario; what it reads is put there when it is prepared."""
        own = dict(scenario.options.get(label, {}))
        if label != REFERENCE and not environment.ours:
            own = {}  # the reference in the place of this repository does not know its options
        task = dataclasses.replace(task, options={**task.options, **own})
        workers = Workers(self.bed.variables(), self.verbose)
        locations: list[str] = []

        def named(operation: str) -> Task:
            prefix = self.bed.prefix or str(uuid.uuid4())
            return dataclasses.replace(
                task, operation=operation, prefix=prefix, locations=tuple(locations)
            )

        def prepare() -> None:
            if task.operation == "read":
                locations.extend(workers.call(environment, named("put")))
                stack.callback(_forgiving, workers.call, environment, named("remove"))

        def measure() -> Measurement:
            return workers.measure(environment, self.bed.linked(scenario, named(task.operation)))

        return Contender(measure, prepare)


def _forgiving(*call: object) -> None:
    """Clean up as far as possible: the servers and all they hold go at the end."""
    action, *arguments = call
    with contextlib.suppress(MeasurementError):
        action(*arguments)  # type: ignore[operator]


class Turns:
    """Lets contenders measure in turn. One that has failed is left out from then on."""

    def __init__(self, contenders: dict[str, Contender]) -> None:
        self._contenders = contenders
        self.failures: dict[str, str] = {}

    def prepare(self) -> None:
        """Let each contender make ready what it needs."""
        for label, contender in self._contenders.items():
            with self._noting(label):
                contender.prepare()

    def take(self, turns: int) -> dict[str, list[Measurement]]:
        """Take so many turns, A B, B A, A B ...: drift then hits all alike."""
        series: dict[str, list[Measurement]] = {label: [] for label in self._contenders}
        for turn in range(turns):
            for label in list(self._contenders)[:: -1 if turn % 2 else 1]:
                if label not in self.failures:
                    with self._noting(label):
                        series[label].append(self._contenders[label].measure())
        return {label: each for label, each in series.items() if label not in self.failures}

    @contextlib.contextmanager
    def _noting(self, label: str) -> Iterator[None]:
        try:
            yield
        except MeasurementError as error:
            self.failures[label] = str(error)
