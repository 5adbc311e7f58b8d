# SPDX-License-Identifier: Apache-2.0
"""One client for a store in each process."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from glance_store._drivers.s3 import client as module
from glance_store._drivers.s3.client import Clients, Settings
from tests.drivers.s3.loopback import older_client_library
from tests.drivers.s3.unit.test_configuration import store_with
from tests.engine.test_processes import run_in_fork

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("boto3")

PATIENCE = 30.0

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients(Settings.of(store_with().store_conf))
    yield made
    made.current().s3.close()


def test_all_threads_share_a_client(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make, all_of_them = module.make_client, threading.Barrier(8)

    def counting(settings: Settings) -> Any:
        made.append(settings)
        return make(settings)

    monkeypatch.setattr(module, "make_client", counting)
    found = []

    def look() -> None:
        all_of_them.wait(PATIENCE)
        found.append(clients.current())

    threads = [threading.Thread(target=look) for _number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(made) == 1
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_a_child_never_uses_what_it_has_inherited(clients: Clients) -> None:
    """Also when it has the number of an ancestor, which is given again when that has ended."""
    inherited, parent = clients.current(), os.getpid()

    def child() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "getpid", lambda: parent)
            own = clients.current()
            assert own is not inherited
            assert clients.current() is own
            # Nor does its own child.
            assert run_in_fork(lambda: check_other(own)) == 0

    def check_other(own: module.Client) -> None:
        assert clients.current() not in (own, inherited)

    assert run_in_fork(child) == 0
    assert clients.current() is inherited


def test_a_client_that_is_being_made_while_a_thread_forks(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is held in the child by a thread that is not there."""
    begun, go_on = threading.Event(), threading.Event()
    make = module.make_client

    def slow(settings: Settings) -> Any:
        begun.set()
        assert go_on.wait(PATIENCE)
        return make(settings)

    monkeypatch.setattr(module, "make_client", slow)
    thread = threading.Thread(target=clients.current)
    thread.start()
    assert begun.wait(PATIENCE)

    def child() -> None:
        module.make_client = make
        assert clients.current().settings.endpoint == clients.settings.endpoint

    try:
        assert run_in_fork(child) == 0
    finally:
        go_on.set()
        thread.join(PATIENCE)


def test_a_store_that_goes_takes_its_client_along() -> None:
    made = Clients(Settings.of(store_with().store_conf))
    made.current().s3.close()
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None


# -- older releases of the client library


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with older_client_library(monkeypatch):
        yield


@pytest.mark.usefixtures("older")
def test_older_library_without_checksums(caplog: pytest.LogCaptureFixture) -> None:
    """The store works without them, and the operator is told once."""
    store = store_with(
        s3_store_enable_data_integrity_protection=True,
        s3_store_request_checksum_calculation="when_supported",
        s3_store_response_checksum_validation="when_supported",
    )
    store.configure(re_raise_bsc=True)
    client = store._client()
    assert caplog.text.count("boto3 1.36 or later") == 1
    assert not client.settings.verifies_downloads
    assert client.settings.request_checksums == "when_required"
    # Over TLS the store adds the checksum of a part itself, which such a release knows.
    assert client.settings.sends_checksum
    client.s3.close()


@pytest.mark.usefixtures("older")
def test_older_library_where_no_checksums_are_wanted(caplog: pytest.LogCaptureFixture) -> None:
    store = store_with(s3_store_request_checksum_calculation="when_supported")
    store.configure(re_raise_bsc=True)
    store._client().s3.close()
    assert "boto3" not in caplog.text
