# SPDX-License-Identifier: Apache-2.0
"""What a test bed offers, and what those with servers have in common."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from bench.worker import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.contenders import Contender
    from bench.environments import Environment
    from bench.model import Scenario
    from bench.worker import Measurement, Task
    from tests.faults.proxy import FaultProxy
    from tests.services.base import Lab, Service

    S = TypeVar("S", bound=Service)
    Measure = Callable[[], Measurement]

# Networks between library and server: what `FaultProxy.inject` takes.
LINKS: dict[str, dict[str, float]] = {
    # 20 ms for a round trip, and 40 MiB/s for each connection.
    "far": {"latency": 0.010, "bandwidth": 40 * MIB},
    # 20 MiB/s for ten connections together.
    "slow": {"latency": 0.0, "bandwidth": 2 * MIB},
}


class UnusableError(Exception):
    """This machine cannot run the servers; the text says why and what would help."""


class Bed(contextlib.AbstractContextManager["Bed"], abc.ABC):
    """Where images go, for the time of a run."""

    driver: ClassVar[str]
    # What both environments need besides glance_store.
    clients: ClassVar[tuple[str, ...]] = ()
    # How names of images begin; each process has its own unless given.
    prefix: ClassVar[str] = ""

    def __exit__(self, *_exception: object) -> None:
        return None

    def start(self, scenario: Scenario) -> None:
        """Start what a scenario needs and does not run yet."""

    @abc.abstractmethod
    def basis(self, scenario: Scenario, images: Path) -> dict[str, Any]:
        """Return the fields of tasks by which they find the store, apart from any network.

        :param images: an empty folder, for stores that have their images there
        """

    def linked(self, scenario: Scenario, task: Task) -> Task:
        """Return a task that takes the way over the scenario's network."""
        return task

    def variables(self) -> Mapping[str, str]:
        """Return variables that workers need in their environment."""
        return {}

    def rivals(
        self,
        scenario: Scenario,
        task: Task,
        images: Path,
        environment: Environment,
        stack: contextlib.ExitStack,
    ) -> dict[str, Contender]:
        """Return other programs that do the work of a scenario, by label.

        :param environment: with the clients
        :param stack: for what has to be undone after the scenario
        """
        return {}

    def ready(self, scenario: Scenario, label: str) -> None:
        """Set the servers up for a contender, which is about to work."""

    def around(self, scenario: Scenario, label: str, measure: Measure) -> Measure:
        """Return a measurement with what has to be done around it, outside of its time."""
        return measure


class ServerBed(Bed):
    """A test bed with the servers of the tests."""

    def __enter__(self) -> ServerBed:  # noqa: PYI034 - Self needs Python 3.11
        from tests.services import catalogue
        from tests.services.base import Lab

        self._stack = contextlib.ExitStack()
        self.lab: Lab = Lab(find=catalogue.find)
        self._stack.callback(self.lab.down)
        self._proxies: dict[tuple[str, int], FaultProxy] = {}
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def service(self, kind: type[S]) -> S:
        """Return a running service, started on first use."""
        from tests.services.base import Unavailable

        try:
            return self.lab.get(kind)
        except Unavailable as reason:
            raise UnusableError(str(reason)) from reason

    def address(self, scenario: Scenario, port: int) -> str:
        """Return host and port that lead to a port of loopback over the scenario's network."""
        if not scenario.link:
            return f"127.0.0.1:{port}"
        key = (scenario.link, port)
        if key not in self._proxies:
            from tests.faults.proxy import FaultProxy

            proxy = self._stack.enter_context(FaultProxy("127.0.0.1", port))
            proxy.inject(**LINKS[scenario.link])
            self._proxies[key] = proxy
        return self._proxies[key].address

    def linked(self, scenario: Scenario, task: Task) -> Task:
        """Replace the server's address, in options and locations."""
        port = self.port(scenario)
        direct, linked = f"127.0.0.1:{port}", self.address(scenario, port)
        options = {
            name: value.replace(direct, linked) if isinstance(value, str) else value
            for name, value in task.options.items()
        }
        locations = [location.replace(direct, linked) for location in task.locations]
        return dataclasses.replace(task, options=options, locations=locations)

    def port(self, scenario: Scenario) -> int:
        """Return the port of the server that images go to; 0 if no network can be in between."""
        return 0

    def around(self, scenario: Scenario, label: str, measure: Measure) -> Measure:
        def settled() -> Measurement:
            self.ready(scenario, label)
            # Nobody pays for what others left unwritten, or to be cleaned up by the servers.
            os.sync()
            self.settle()
            before = self.figures(scenario)
            measured = measure()
            after = self.figures(scenario)
            counted = {name: value - before[name] for name, value in after.items()}
            gib = measured.bytes / MIB / 1024
            rate = {"CPU s/GiB": measured.cpu_seconds / gib} if gib else {}
            return dataclasses.replace(measured, figures={**measured.figures, **rate, **counted})

        return settled

    def figures(self, scenario: Scenario) -> dict[str, float]:
        """Return counters of the servers."""
        return {}

    def settle(self, patience: float = 15.0) -> None:
        """Wait until the servers are idle, or patience is at its end."""
        deadline = time.monotonic() + patience
        pids = {process.pid for service in self.lab.running() for process in service.processes}
        before = _cpu_ticks(pids)
        while time.monotonic() < deadline:
            time.sleep(0.4)
            now = _cpu_ticks(pids)
            # 40 ms in 400.
            if now - before <= 0.04 * os.sysconf("SC_CLK_TCK"):
                return
            before = now


def context_of(token: str, about: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of the context of a request, with the catalog in the shape of v2.

    :param about: what Keystone says about the token
    """
    catalog = []
    for service in about["catalog"]:
        regions: dict[str, dict[str, str]] = {}
        for endpoint in service["endpoints"]:
            own = regions.setdefault(endpoint["region"], {"region": endpoint["region"]})
            own[f"{endpoint['interface']}URL"] = endpoint["url"]
        catalog.append({**service, "endpoints": list(regions.values())})
    user, project = about["user"]["id"], about["project"]["id"]
    return {
        "auth_token": token,
        "user_id": user,
        "user": user,
        "project_id": project,
        "tenant": project,
        "service_catalog": catalog,
    }


def _cpu_ticks(sessions: set[int]) -> int:
    """Return the CPU time so far of all processes in some sessions, in clock ticks."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            # The name, in parentheses, may hold blanks.
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) in sessions:
                total += int(fields[11]) + int(fields[12])
    return total
