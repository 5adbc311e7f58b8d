# SPDX-License-Identifier: Apache-2.0
"""Fixtures of pytest: each server is started for the first test that wants it, once in a run.

Without what a server needs its tests are skipped and say why; in CI (`CI=true`) they fail.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest

from tests.services import catalogue, reaper
from tests.services.base import Lab, Service, Unavailable
from tests.services.sharing import Host, lab_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from tests.services.ceph import Ceph
    from tests.services.cinder import Cinder
    from tests.services.keystone import Keystone
    from tests.services.radosgw import Radosgw
    from tests.services.swift import Swift
    from tests.services.vcenter import VCenter

_LAB = pytest.StashKey[Lab]()
_HOST = pytest.StashKey[Host]()


def unavailable(reason: Unavailable | str) -> NoReturn:
    """Skip the test, or fail it in CI, where everything has to be there."""
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"CI must run this test: {reason}", pytrace=False)
    pytest.skip(str(reason))


def client_module(name: str, extra: str) -> ModuleType:
    """Return the module of a client, for a fixture.

    :param name: of the module
    :param extra: of this distribution, which brings the client
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        unavailable(f"{name} is missing: pip install 'glance_store[{extra}]'")


def running(lab: Lab, name: str) -> Service:
    """Return a service, started if need be, for a fixture.

    :param name: of the service, one of the catalogue
    """
    try:
        lab.up(name)
    except Unavailable as reason:
        unavailable(reason)
    return lab[name]


def pytest_configure(config: pytest.Config) -> None:
    """See to it that nothing outlives this run."""
    reaper.start_run()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Let a process of pytest-xdist use the servers of this one."""
    config: pytest.Config = node.config
    if _HOST not in config.stash:
        config.stash[_LAB] = Lab(find=catalogue.find)
        config.stash[_HOST] = Host(config.stash[_LAB])
    config.stash[_HOST].invite(node.workerinput)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers of all processes."""
    if (host := config.stash.get(_HOST, None)) is not None:
        host.close()
        config.stash[_LAB].down()


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Iterator[Lab]:
    """Give the running services of this test run, which other processes may be using."""
    everything = lab_of(getattr(pytestconfig, "workerinput", None))
    pytestconfig.stash[_LAB] = everything
    yield everything
    everything.down()


@pytest.fixture(scope="session")
def own_lab() -> Iterator[Lab]:
    """Give services for tests that freeze, kill or reconfigure them: of this process alone."""
    own = Lab(find=catalogue.find)
    yield own
    own.down()


def ceph_of(lab: Lab) -> Ceph:
    """Return the Ceph cluster of a lab; the modules `rados` and `rbd` can be imported."""
    cluster = cast("Ceph", running(lab, "ceph"))
    try:
        cluster.add_bindings()
    except Unavailable as reason:
        unavailable(reason)
    return cluster


@pytest.fixture(scope="session")
def ceph(lab: Lab) -> Ceph:
    """Give a Ceph cluster; the modules `rados` and `rbd` can be imported."""
    return ceph_of(lab)


@pytest.fixture(scope="session")
def radosgw(lab: Lab) -> Radosgw:
    """Give a RADOS gateway, which speaks S3 and Swift."""
    return cast("Radosgw", running(lab, "radosgw"))


@pytest.fixture(scope="session")
def keystone(lab: Lab) -> Keystone:
    """Give a Keystone."""
    return cast("Keystone", running(lab, "keystone"))


@pytest.fixture(scope="session")
def swift(lab: Lab) -> Swift:
    """Give a Swift that trusts the Keystone."""
    return cast("Swift", running(lab, "swift"))


@pytest.fixture(scope="session")
def cinder(lab: Lab) -> Cinder:
    """Give a Cinder with volumes."""
    return cast("Cinder", running(lab, "cinder"))


@pytest.fixture(scope="session")
def vcenter(own_lab: Lab) -> VCenter:
    """Give a vCenter of this process alone: its faults and its sessions are for all who use it."""
    return cast("VCenter", running(own_lab, "vcenter"))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say how long each server took to start."""
    everything = config.stash.get(_LAB, None)
    if everything is None or not everything.started:
        return
    terminalreporter.section("servers")
    for service in everything.started:
        terminalreporter.line(
            f"{service.name}: ready after {service.seconds:.1f} s"
            f" (programs made available in {service.install_seconds:.1f} s)"
        )
    total = sum(service.seconds or 0 for service in everything.started)
    terminalreporter.line(f"together: {total:.1f} s")
