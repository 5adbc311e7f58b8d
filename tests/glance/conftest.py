# SPDX-License-Identifier: Apache-2.0
"""Fixtures: one Glance for most tests, and a way to start others."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from .client import GlanceClient
from .environment import (
    GLANCE_PYTHON,
    EnvironmentUnavailableError,
    GlanceEnvironment,
    glance_environment,
)
from .scenes import ALL_KINDS, Scene, is_wanted, kind_of
from .server import GlanceServer
from .webserver import WebServer

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

SHOWN_LOG_LINES = 80

_SERVERS = pytest.StashKey[list[GlanceServer]]()
_LOG_STARTS = pytest.StashKey[dict[GlanceServer, int]]()


class StartGlance(Protocol):
    """Make and start another Glance; it is stopped at the end of the module."""

    def __call__(self, name: str, **arguments: Any) -> GlanceServer: ...


@pytest.fixture(scope="session")
def environment() -> Iterator[GlanceEnvironment]:
    """An installed Glance with the library under test."""
    if sys.version_info < GLANCE_PYTHON:
        pytest.skip(f"Glance needs Python {'.'.join(map(str, GLANCE_PYTHON))}")
    with contextlib.ExitStack() as stack:
        try:
            installed = stack.enter_context(glance_environment())
        except EnvironmentUnavailableError as error:
            # A developer without a network goes on without these tests; the project does not.
            if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
                raise
            pytest.skip(f"Glance could not be installed: {error}")
        yield installed


@pytest.fixture(scope="session")
def database(environment: GlanceEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of Glance, to be copied; made once for each installation."""
    made = environment.root / "empty.sqlite"
    if not made.exists():
        server = GlanceServer(environment, tmp_path_factory.mktemp("glance-database"))
        copied = shutil.copyfile(server.database, made.with_suffix(f".{os.getpid()}"))
        # Other processes of the run may be at it, too.
        copied.replace(made)
    return made


@contextlib.contextmanager
def _starter(request: pytest.FixtureRequest) -> Iterator[StartGlance]:
    environment = request.getfixturevalue("environment")
    database = request.getfixturevalue("database")
    temporary = request.getfixturevalue("tmp_path_factory")
    known = request.config.stash.setdefault(_SERVERS, [])
    with contextlib.ExitStack() as stack:

        def start(name: str, **arguments: Any) -> GlanceServer:
            state = temporary.mktemp(f"glance-{name}")
            server = GlanceServer(environment, state, database=database, **arguments)
            known.append(server)
            stack.callback(server.stop)
            server.start()
            return server

        yield start


@pytest.fixture(scope="module")
def start_glance(request: pytest.FixtureRequest) -> Iterator[StartGlance]:
    """Start a Glance with other options than the usual one."""
    with _starter(request) as start:
        yield start


@pytest.fixture(scope="session")
def glance(request: pytest.FixtureRequest) -> Iterator[GlanceServer]:
    """The usual Glance, with the file stores `fast` and `slow` and the http store `web`."""
    with _starter(request) as start:
        yield start("usual")


@pytest.fixture(scope="session")
def client(glance: GlanceServer) -> Iterator[GlanceClient]:
    """An administrator at the usual Glance."""
    with GlanceClient(glance.url) as administrator:
        yield administrator


@pytest.fixture(scope="session", params=ALL_KINDS)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A Glance with stores of one kind after the other, the first of them the default.

    Stores of real servers are configured before the processes fork that use them.
    """
    request.getfixturevalue("environment")  # without it no server need be started
    with kind_of(request.param, request) as kind, contextlib.ExitStack() as stack:
        if kind.stores:
            start = stack.enter_context(_starter(request))
            server = start(kind.name, **kind.arguments(), processes=2, prefork=True)
        else:
            server = request.getfixturevalue("glance")
        on_stage = Scene(kind, server)
        stack.enter_context(on_stage.client)
        yield on_stage


@pytest.fixture(scope="session")
def web() -> Iterator[WebServer]:
    """A web server with images of its own."""
    with WebServer() as server:
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what takes real servers long and tells nothing new."""
    items[:] = filter(is_wanted, items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note where the logs are when a test begins."""
    servers = item.config.stash.setdefault(_SERVERS, [])
    item.stash[_LOG_STARTS] = {server: len(server.log_text().encode()) for server in servers}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what the Glances logged meanwhile."""
    report = yield
    if report.failed:
        for server in item.config.stash.get(_SERVERS, []):
            start = item.stash.get(_LOG_STARTS, {}).get(server, 0)
            lines = server.log_text(start).splitlines()[-SHOWN_LOG_LINES:]
            if lines:
                report.sections.append((f"end of {server.log}", "\n".join(lines)))
    return report
