# SPDX-License-Identifier: Apache-2.0
"""One set of servers: started once for all processes of a run, which cannot hurt it."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests.services import catalogue
from tests.services.base import Lab, Service, Unavailable
from tests.services.daemon import Daemon
from tests.services.sharing import GuestLab, Host, lab_of

if TYPE_CHECKING:
    from collections.abc import Iterator


class Sleeper(Service):
    """A process that does nothing."""

    name = "sleeper"
    starts: ClassVar[int] = 0

    def install(self) -> None:
        pass

    def start(self, folder: Path, lab: Lab) -> None:
        type(self).starts += 1
        self.daemon = Daemon(self, [sys.executable, "-c", "import time; time.sleep(600)"])
        self.daemon.start()
        self.owner = "everybody"

    def join(self, process: str) -> None:
        self.owner = process

    def facts(self) -> dict[str, str]:
        return {}


class Leaning(Sleeper):
    """A service that needs another."""

    name = "leaning"
    needs = ("sleeper",)

    def start(self, folder: Path, lab: Lab) -> None:
        self.sleeper = lab.get(Sleeper)


class Missing(Sleeper):
    """A service that this machine cannot have."""

    name = "missing"

    def install(self) -> None:
        raise Unavailable("missing: there is no such program")


class Broken(Sleeper):
    """A service that does not start."""

    name = "broken"

    def start(self, folder: Path, lab: Lab) -> None:
        raise RuntimeError("no port is free")


class Variant(Sleeper):
    """A service that one test has made for itself."""

    name = "variant"


@pytest.fixture(autouse=True)
def services(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (Sleeper, Leaning, Missing, Broken)
    found = {kind.name: f"{__name__}:{kind.__name__}" for kind in kinds}
    monkeypatch.setattr(catalogue, "MODULES", found)
    monkeypatch.setattr(Sleeper, "starts", 0)
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw7")


@pytest.fixture
def workerinput() -> Iterator[dict[str, Any]]:
    """What the processes of a run are told."""
    lab = Lab(find=catalogue.find)
    host = Host(lab)
    told: dict[str, Any] = {}
    host.invite(told)
    yield told
    host.close()
    lab.down()


@pytest.fixture
def guest(workerinput: dict[str, Any]) -> Iterator[Lab]:
    lab = lab_of(workerinput)
    assert isinstance(lab, GuestLab)
    yield lab
    lab.down()


def test_all_processes_use_one_server(workerinput: dict[str, Any]) -> None:
    guests = [lab_of(workerinput) for _number in range(4)]
    threads = [threading.Thread(target=lab.up, args=("sleeper",)) for lab in guests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Sleeper.starts == 1
    assert len({lab["sleeper"].folder for lab in guests}) == 1
    for lab in guests:
        lab.down()


def test_each_process_joins(guest: Lab) -> None:
    assert guest.get(Sleeper).owner == "gw7"


def test_services_that_belong_together_stay_so(guest: Lab) -> None:
    assert guest.get(Leaning).sleeper is guest.get(Sleeper)


def test_nobody_hurts_a_shared_server(guest: Lab) -> None:
    sleeper = guest.get(Sleeper)
    for hurt in (sleeper.daemon.freeze, sleeper.daemon.kill, sleeper.daemon.start):
        with pytest.raises(RuntimeError, match="other tests"):
            hurt()
    sleeper.stop()
    guest.down()
    assert sleeper.processes == []


def test_what_is_missing_is_said_to_all(guest: Lab) -> None:
    for _time in range(2):
        with pytest.raises(Unavailable, match="there is no such program"):
            guest.up("missing")


def test_what_does_not_start_is_said(guest: Lab) -> None:
    with pytest.raises(RuntimeError, match="no port is free"):
        guest.up("broken")


def test_variants_are_of_the_process_that_makes_them(guest: Lab) -> None:
    variant = guest.get(Variant)
    assert not variant.shared
    variant.daemon.freeze()
    variant.daemon.thaw()
    assert variant.owner == "everybody"


def test_a_single_process_has_its_own() -> None:
    lab = lab_of(None)
    assert not lab.get(Sleeper).shared
    lab.down()
