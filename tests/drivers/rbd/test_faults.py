# SPDX-License-Identifier: Apache-2.0
"""A cluster that is silent for a while, or gone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import Source
from tests.drivers.rbd.conftest import MIB, Bed, add, delete, locate, new_id, read, size_of
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.services

DATA = os.urandom(24 * MIB + 5)
TIMEOUT = 3
# All that a call may raise when there is no cluster.
CLEAN = (exceptions.GlanceStoreException, exceptions.BackendException)


@pytest.fixture
def healed(bed: Bed) -> Iterator[None]:
    """The cluster works again after the test."""
    yield
    bed.ceph.heal()


@pytest.fixture
def patient(bed: Bed) -> Any:
    """A store without time-outs, as by default."""
    return bed.store(rbd_store_io_depth=4)


@pytest.fixture
def impatient(bed: Bed) -> Any:
    """A store with a time-out."""
    return bed.store(rbd_store_io_depth=4, rados_connect_timeout=TIMEOUT)


def thaw_later(bed: Bed) -> threading.Timer:
    timer = threading.Timer(2, bed.ceph.osd.thaw)
    timer.start()
    return timer


def lose(bed: Bed) -> None:
    bed.ceph.osd.kill()
    bed.ceph.mon.kill()


# -- silence


@pytest.mark.usefixtures("healed")
def test_osd_stops_and_goes_on_during_an_upload(bed: Bed, patient: Any) -> None:
    timers: list[threading.Timer] = []

    def freeze(position: int) -> None:
        if position >= len(DATA) // 2 and not timers:
            bed.ceph.osd.freeze()
            timers.append(thaw_later(bed))

    source = Source(DATA, before_read=freeze)
    result = patient.add(new_id(), source, len(DATA), "sha512")
    assert len(timers) == 1
    assert result[1:4] == (
        len(DATA),
        hashlib.md5(DATA, usedforsecurity=False).hexdigest(),
        hashlib.sha512(DATA).hexdigest(),
    )
    assert read(patient, result[0]) == DATA


@pytest.mark.usefixtures("healed")
def test_osd_stops_and_goes_on_during_a_download(bed: Bed, patient: Any) -> None:
    chunks = patient.get(locate(patient, add(patient, DATA)))[0]
    found = next(chunks)
    bed.ceph.osd.freeze()
    thaw_later(bed)
    assert found + b"".join(chunks) == DATA


def test_download_that_is_given_up_while_the_cluster_is_silent(bed: Bed, patient: Any) -> None:
    """Nobody waits for the cluster; when it answers, the last read closes the image."""
    uri = add(patient, DATA)
    chunks = patient.get(locate(patient, uri))[0]
    next(chunks)
    connection = patient._cluster.borrow()
    bed.ceph.osd.freeze()
    try:
        closer = threading.Thread(target=chunks.close, daemon=True)
        closer.start()
        until(lambda: not closer.is_alive(), "the download is closed")
    finally:
        bed.ceph.osd.thaw()
    until(lambda: not connection._opened, "the image is closed")
    connection.give_back()
    delete(patient, uri)


# -- loss


@pytest.mark.usefixtures("healed", "short_watch")
def test_cluster_is_lost_and_comes_back(
    bed: Bed, impatient: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Every call ends with an error of the library; later the same store works again."""
    uri = add(impatient, DATA)
    half = impatient.get(locate(impatient, uri))[0]
    next(half)
    image_id = new_id()
    lost: list[int] = []

    def lose_it(position: int) -> None:
        if position >= len(DATA) // 2 and not lost:
            lost.append(position)
            lose(bed)

    calls: list[tuple[str, Callable[[], object]]] = [
        ("upload", lambda: impatient.add(image_id, Source(DATA, before_read=lose_it), 0, "md5")),
        ("download", lambda: b"".join(half)),
        ("get", lambda: impatient.get(locate(impatient, uri))),
        ("get_size", lambda: size_of(impatient, uri)),
        ("delete", lambda: delete(impatient, uri)),
        ("add", lambda: add(impatient, DATA)),
        ("health", impatient.check_health),
    ]
    for name, call in calls:
        began = time.monotonic()
        with pytest.raises(CLEAN) as caught:
            call()
        print(f"{name}: {time.monotonic() - began:.1f} s: {caught.value!r}")
    assert "out of reach" in caplog.text
    bed.ceph.heal()
    assert read(impatient, uri) == DATA
    # What the upload has left cannot be read, and goes with the next one.
    with pytest.raises(exceptions.NotFound):
        read(impatient, f"rbd://{image_id}")
    stored: list[str] = []

    def is_stored() -> bool:
        # Not before the cluster has noticed that its client is gone.
        with contextlib.suppress(exceptions.Duplicate):
            stored.append(add(impatient, DATA, image_id))
        return bool(stored)

    until(is_stored, "the image can be stored", seconds=120, pause=0.5)
    assert read(impatient, stored[0]) == DATA
    assert (bed.names(), bed.trash()) == (sorted([image_id, uri.split("/")[-2]]), [])


@pytest.mark.usefixtures("healed")
@pytest.mark.parametrize("name", ["ceph", None], ids=["one-of-several", "single"])
def test_r136_store_whose_cluster_is_gone_when_it_is_configured(
    bed: Bed, name: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The time-out holds; the store works as soon as the cluster is back."""
    uri = add(bed.store(), DATA)
    lose(bed)
    store = bed.store(name, rados_connect_timeout=TIMEOUT)
    # The only store does not ask its cluster before it needs it.
    assert ("monitors do not answer" in caplog.text) == (name is not None)
    with pytest.raises(exceptions.BackendException, match="monitors do not answer"):
        read(store, uri)
    bed.ceph.heal()
    assert read(store, uri) == DATA
