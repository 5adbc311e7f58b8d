# SPDX-License-Identifier: Apache-2.0
"""Clusters without room, containers that go away, and local disks that fail."""

from __future__ import annotations

import errno
import io
import types
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers.swift import streamed
from glance_store.testing import image
from glance_store.testing.inputs import Source, check_bytes
from tests.drivers.swift.conftest import SEGMENT, read
from tests.drivers.swift.uploads import BUFFERED, WAYS, add, behind, count_way, numbers, options_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.services


@pytest.mark.parametrize("status", [413, 507])
@pytest.mark.parametrize("way", WAYS)
def test_r098_no_room(make, through, proxy, account, container, tmp_path, way, status):
    """Regression 98: it is `StorageFull`, and nothing is left."""
    store = behind(make, through, **options_of(way, tmp_path))
    number, data = count_way(store, proxy, way)
    proxy.fail_request(number, status, times=None)
    with pytest.raises(exceptions.StorageFull):
        add(store, "image", data)
    proxy.clear()
    assert account.objects(container) == []


@pytest.mark.parametrize("known", [True, False], ids=["known-size", "unknown-size"])
@pytest.mark.parametrize("way", WAYS)
def test_quota_of_a_container(make, account, container, tmp_path, way, known):
    if not known and way.startswith("stream"):
        pytest.skip("Swift does not hold data against a quota whose length it is not told")
    store = make(**options_of(way, tmp_path))
    account.call("PUT", f"/{container}", headers={"X-Container-Meta-Quota-Bytes": "500"})
    data = image(WAYS[way].size)
    with pytest.raises(exceptions.StorageFull):
        add(store, "image", data, len(data) if known else 0)
    assert account.objects(container) == []


# The container goes away: a failed upload of the same id has removed it.


@pytest.mark.parametrize("way", WAYS)
def test_container_is_made_again(make, account, container, tmp_path, way):
    store = make(**options_of(way, tmp_path))
    data = image(WAYS[way].size)
    status = []

    def remove(position: int) -> None:
        if not position:
            status.append(account.call("DELETE", f"/{container}").status)

    uri = store.add("image", Source(data, before_read=remove), len(data), "sha256")[0]
    assert status == [204]
    check_bytes(read(store, uri), data)


@pytest.mark.parametrize("way", WAYS)
def test_container_that_may_not_be_made_again(make, account, container, tmp_path, way):
    """That is no image that is not found."""
    store = make(create_container_on_put=False, **options_of(way, tmp_path))
    account.call("PUT", f"/{container}")
    data = image(WAYS[way].size)

    def remove(position: int) -> None:
        if not position:
            account.call("DELETE", f"/{container}")

    source = Source(data, before_read=remove)
    with pytest.raises(exceptions.BackendException, match="create_container_on_put"):
        store.add("image", source, len(data), "sha256")
    assert account.containers(container) == []


# The file of a segment.


class BadFile(io.BytesIO):
    """A file on a disk that fails.

    :param number: of the error
    :param reading: whether it is read errors that it has
    """

    def __init__(self, number: int, reading: bool) -> None:
        super().__init__()
        self._error = OSError(number, "of the disk")
        self._reading = reading

    def write(self, data: Any) -> int:
        if not self._reading:
            raise self._error
        return super().write(data)

    def read(self, size: int | None = -1) -> bytes:
        if self._reading and self.tell():
            raise self._error
        return super().read(size)


def buffered(monkeypatch, file: Any, folder: Path) -> dict[str, Any]:
    """Return options of a store whose uploads get a file."""
    module = types.SimpleNamespace(TemporaryFile=lambda **_given: file)
    monkeypatch.setattr(streamed, "tempfile", module)
    return options_of(BUFFERED, folder)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_folder(make, account, container, tmp_path, monkeypatch, number):
    store = make(**buffered(monkeypatch, BadFile(number, False), tmp_path))
    with pytest.raises(exceptions.StorageFull, match="swift_upload_buffer_dir"):
        add(store, "image", image(SEGMENT + 1))
    assert account.objects(container) == []


def test_bad_folder(make, account, container, tmp_path, monkeypatch):
    """A disk that fails is not full."""
    store = make(**buffered(monkeypatch, BadFile(errno.EIO, False), tmp_path))
    with pytest.raises(exceptions.BackendException, match="swift_upload_buffer_dir") as caught:
        add(store, "image", image(SEGMENT + 1))
    assert not isinstance(caught.value, exceptions.StorageFull)
    assert account.objects(container) == []


def test_segment_that_cannot_be_read_again(
    make, through, proxy, account, container, tmp_path, monkeypatch
):
    """That is nothing that Swift could do better the next time."""
    file = BadFile(errno.EIO, True)
    store = behind(make, through, **buffered(monkeypatch, file, tmp_path))
    with pytest.raises(exceptions.BackendException, match="swift_upload_buffer_dir") as caught:
        add(store, "image", image(2 * 1024 * 1024 + 1))
    assert not isinstance(caught.value, exceptions.RemoteServiceUnavailable)
    assert len(numbers(proxy, "PUT", "-00001")) == 1
    assert account.objects(container) == []
