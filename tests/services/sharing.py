# SPDX-License-Identifier: Apache-2.0
"""One set of servers for all processes of a run.

pytest-xdist runs tests in several processes. The one that hands out the tests has the servers
(`Host`). The others ask it for them (`GuestLab`) and learn addresses, keys and folders;
`Service.join` gives each of them accounts of its own. Tests that freeze, kill or reconfigure
servers cannot share them: they take the fixture `own_lab`.
"""

from __future__ import annotations

import io
import os
import pickle
import threading
from collections.abc import Mapping
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from tests.services import catalogue
from tests.services.base import Lab, Service, Unavailable

# Entry of what pytest-xdist tells its processes.
_INVITATION = "glance_store_lab"


def process_name() -> str:
    """Return what tells this process of a run from the others, for names of pools and buckets."""
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


class _Pickler(pickle.Pickler):
    """Writes one service; those that it knows are named."""

    def __init__(self, file: io.BytesIO, service: Service) -> None:
        super().__init__(file)
        self._service = service

    def persistent_id(self, found: object) -> str | None:
        if isinstance(found, Service) and found is not self._service:
            return found.name
        return None


class _Unpickler(pickle.Unpickler):
    """Reads one service; those that it knows are there already."""

    def __init__(self, file: io.BytesIO, known: Mapping[str, Service]) -> None:
        super().__init__(file)
        self._known = known

    def persistent_load(self, name: str) -> Service:
        return self._known[name]


class Host:
    """Lets other processes use the services of a lab, which it starts when they ask.

    :param lab: the services
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        # Made before several threads want it.
        self.folder = lab.folder
        self._key = os.urandom(32)
        self._listener = Listener(family="AF_UNIX", authkey=self._key)
        threading.Thread(target=self._accept, daemon=True, name="lab").start()

    def invite(self, workerinput: dict[str, Any]) -> None:
        """Tell a process of pytest-xdist how to ask for services."""
        workerinput[_INVITATION] = (self._listener.address, self._key.hex())

    def close(self) -> None:
        """Take no more questions."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                # Closed.
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: Connection) -> None:
        with connection:
            while True:
                try:
                    name = connection.recv()
                except (EOFError, OSError):
                    return
                connection.send(self._look_up(name))

    def _look_up(self, name: str) -> bytes | Exception:
        try:
            self._lab.up(name)
        except Unavailable as error:
            return error
        except Exception as error:  # noqa: BLE001 - the test that asked shows it
            return RuntimeError(f"{name} did not start: {error!r}")
        target = io.BytesIO()
        _Pickler(target, self._lab[name]).dump(self._lab[name])
        return target.getvalue()


class GuestLab(Lab):
    """The services of another process; those that it does not know are started here.

    :param address: of the host
    :param key: that lets this process in
    """

    def __init__(self, address: str, key: bytes) -> None:
        super().__init__(find=catalogue.find)
        self._host = Client(address, authkey=key)

    def _up(self, name: str) -> None:
        try:
            shared = catalogue.find(name)
        except LookupError:
            # A variant that one test has made for itself.
            super()._up(name)
            return
        self.up(*shared.needs)
        self._host.send(name)
        answer = self._host.recv()
        if isinstance(answer, Exception):
            raise answer
        service: Service = _Unpickler(io.BytesIO(answer), self._running).load()
        service.join(process_name())
        self._running[name] = service

    def down(self) -> None:
        """Stop what was started here."""
        self._host.close()
        super().down()


def lab_of(workerinput: Mapping[str, Any] | None) -> Lab:
    """Return the lab of a process: that of its host, or one of its own.

    :param workerinput: what pytest-xdist has told this process, if it is one of several
    """
    if workerinput is None or _INVITATION not in workerinput:
        return Lab(find=catalogue.find)
    address, key = workerinput[_INVITATION]
    return GuestLab(address, bytes.fromhex(key))
