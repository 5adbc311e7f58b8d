# SPDX-License-Identifier: Apache-2.0
"""What a real server of the tests has to offer, and how servers are started together.

A `Service` installs what it needs, starts on loopback with all of its state in one folder, tells
how to reach it, and stops without leftovers. `Lab` starts several, those that need others after
them.
"""

from __future__ import annotations

import abc
import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

LOG = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("GLANCE_STORE_TEST_CACHE") or REPOSITORY / ".cache")

S = TypeVar("S", bound="Service")


class Unavailable(Exception):  # noqa: N818 - no error on a laptop
    """This machine cannot run the service; the text says why and what would help."""


class Service(abc.ABC):
    """A real server for the tests."""

    name: ClassVar[str]
    # Names of the services that have to run before this one.
    needs: ClassVar[tuple[str, ...]] = ()
    # The stores that `glance_conf` describes: type of the driver by id, which names the section.
    stores: ClassVar[dict[str, str]] = {}
    # What ends its processes, one after the other until it works.
    ending: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGTERM, signal.SIGKILL)

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.folder: Path | None = None
        # How long it took to make the programs available, and to start.
        self.install_seconds: float | None = None
        self.seconds: float | None = None
        # Whether it runs for other processes as well, one of which has started it.
        self.shared = False

    @abc.abstractmethod
    def install(self) -> None:
        """Make the programs available, once; raise `Unavailable` when that is impossible."""

    @abc.abstractmethod
    def start(self, folder: Path, lab: Lab) -> None:
        """Start in `folder`, which exists and is empty, and return when the server answers.

        Processes are started through `run`, which has them stopped whatever happens.
        """

    @abc.abstractmethod
    def facts(self) -> dict[str, str]:
        """Return addresses and credentials by name."""

    def glance_conf(self) -> str:
        """Return the sections of a glance-api.conf for the stores on this server, else nothing."""
        return ""

    def __getstate__(self) -> dict[str, Any]:
        """Give other processes what they have to know; the server is not theirs to stop."""
        return {**self.__dict__, "processes": [], "shared": True}

    def join(self, process: str) -> None:  # noqa: B027 - most need nothing
        """Prepare the use of a shared server by a further process.

        :param process: its name
        """

    def run(self, command: Sequence[object], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process of this service in a process group of its own, with a log."""
        assert self.folder is not None
        log = self.folder / f"{Path(str(command[0])).name}-{len(self.processes)}.log"
        # A signal that came in between would leave a process that nobody knows.
        with log.open("ab") as output, _signals_later():
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )
            self.processes.append(process)
        return process

    def wait(self, ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Wait for a condition; fail at once when a process of the service has ended."""
        deadline = time.monotonic() + seconds
        while not ready():
            for process in self.processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{self.name}: a process has ended\n{self.logs()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: {what} is late\n{self.logs()}")
            time.sleep(0.05)

    def logs(self) -> str:
        """Return the ends of the logs."""
        assert self.folder is not None
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}"
            for log in sorted(self.folder.glob("*.log"))
        )

    def stop(self) -> None:
        """End the processes that were started, by their own ids."""
        for process in reversed(self.processes):
            _end(process, self.ending)
        self.processes.clear()


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """Let the signals that end a run wait until the end of a block."""
    if threading.current_thread() is not threading.main_thread():
        # Signals do not interrupt other threads.
        yield
        return
    waiting: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {n: signal.signal(n, lambda got, _frame: waiting.append(got)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if waiting:
        signal.raise_signal(waiting[0])


def _end(
    process: subprocess.Popen[bytes], signs: Sequence[signal.Signals], patience: float = 10
) -> None:
    for sign in signs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Tell whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Lab:
    """Running services.

    :param services: one class for each service that can be started
    :param find: finds the class of a service that is not among them
    """

    def __init__(
        self,
        services: Sequence[type[Service]] = (),
        find: Callable[[str], type[Service]] | None = None,
    ) -> None:
        self._classes = {service.name: service for service in services}
        self._find = find
        self._running: dict[str, Service] = {}
        # Several threads may ask for services; those that start do not hold up others.
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._failed: dict[str, Exception] = {}
        self._folder: Path | None = None
        # All services that ever became ready, in order.
        self.started: list[Service] = []

    @property
    def folder(self) -> Path:
        """The one folder with the state of all services."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="glance_store-lab-"))
        return self._folder

    def __getitem__(self, name: str) -> Service:
        """Return a running service."""
        return self._running[name]

    def __contains__(self, name: str) -> bool:
        """Tell whether a service runs."""
        return name in self._running

    def get(self, service: type[S]) -> S:
        """Return a service, started with those that it needs if it does not run yet."""
        self._classes.setdefault(service.name, service)
        self.up(service.name)
        found = self._running[service.name]
        assert isinstance(found, service)
        return found

    def up(self, *names: str) -> None:
        """Start services and what they need.

        One that did not start is not tried again: the tests that want it need not wait once more.

        :raises Unavailable: this machine cannot run one of them
        """
        for name in names:
            with self._locks[name]:
                if name in self._running:
                    continue
                if name in self._failed:
                    raise self._failed[name]
                try:
                    self._up(name)
                except Exception as error:
                    self._failed[name] = error
                    raise

    def _up(self, name: str) -> None:
        if name not in self._classes and self._find is not None:
            self._classes[name] = self._find(name)
        service = self._classes[name]()
        self.up(*service.needs)
        began = time.monotonic()
        service.install()
        service.install_seconds = time.monotonic() - began
        folder = self.folder / name
        folder.mkdir()
        service.folder = folder
        began = time.monotonic()
        try:
            service.start(folder, self)
        except BaseException:
            service.stop()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        service.seconds = time.monotonic() - began
        LOG.info("%s is ready after %.1f s", name, service.seconds)
        self._running[name] = service
        self.started.append(service)

    def running(self) -> Iterator[Service]:
        """Yield the running services in the order of their start."""
        yield from self._running.values()

    def down(self) -> None:
        """Stop all services and remove their state, even when one of them cannot be stopped."""
        with contextlib.ExitStack() as stack:
            if self._folder is not None:
                stack.callback(shutil.rmtree, self._folder)
                self._folder = None
            for service in self._running.values():
                stack.callback(service.stop)
            self._running.clear()
