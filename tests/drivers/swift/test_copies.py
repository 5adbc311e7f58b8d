# SPDX-License-Identifier: Apache-2.0
"""Copies that Swift makes by itself: ranges of an image become segments of a manifest."""

from __future__ import annotations

import hashlib

import pytest

from glance_store import exceptions
from glance_store._drivers.swift import large
from glance_store._drivers.swift.client import Client
from glance_store.testing import image
from glance_store.testing.inputs import check_bytes
from tests.drivers.swift.conftest import SEGMENT, locate, read
from tests.drivers.swift.uploads import add

pytestmark = pytest.mark.services


def copy(target, source, uri, progress=None):
    return target.copy_from(source, locate(source, uri), "copy", progress or (lambda _length: None))


@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("size", [1, 2 * SEGMENT + 5])
def test_to_another_container(make, account, container, monkeypatch, static, size):
    """From an object or from segments, to either kind of manifest; the copy needs no image."""
    if not static:
        monkeypatch.setattr(large, "cluster_info", lambda *_args: large.USUAL)
    source, target = make(), make(container=f"{container}-2")
    data = image(size)
    uri = add(source, "image", data, size)
    steps = []
    new_uri, copied, _metadata = copy(target, source, uri, steps.append)
    assert copied == sum(steps) == size
    # Its own mark alone: by that it is known whose object it is.
    mark = account.call("HEAD", f"/{container}/image").headers["x-object-meta-glance-upload"]
    made = account.call("HEAD", f"/{container}-2/copy").headers
    assert made["x-object-meta-glance-upload"] != mark
    source.delete(locate(source, uri))
    check_bytes(read(target, new_uri), data)
    assert target.get_size(locate(target, new_uri)) == size
    target.delete(locate(target, new_uri))
    assert account.objects(f"{container}-2") == []
    account.remove(f"{container}-2")


@pytest.mark.parametrize("steps", [1, 3])
def test_what_ends_it_leaves_nothing(make, account, container, steps):
    store = make()
    uri = add(store, "image", image(2 * SEGMENT + 5), 2 * SEGMENT + 5)
    before = account.objects(container)
    counted = []

    def end(length):
        counted.append(length)
        if len(counted) == steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(store, store, uri, end)
    assert account.objects(container) == before


def test_no_image_is_overwritten(make, account, container):
    store = make()
    data = image(SEGMENT + 5)
    uri = add(store, "image", data, len(data))
    add(store, "copy", b"other", 5)
    before = account.objects(container)
    with pytest.raises(exceptions.Duplicate):
        copy(store, store, uri)
    assert account.objects(container) == before


@pytest.mark.parametrize("ignored", ["X-Copy-From", "Range"])
def test_a_server_that_ignores_a_header(make, account, container, monkeypatch, ignored):
    """What it has stored instead is seen, and removed."""
    store = make()
    data = image(2 * SEGMENT + 5)
    uri = add(store, "image", data, len(data))
    before = account.objects(container)
    send = Client._send

    def without(self, method, url, headers, *rest):
        if "X-Copy-From" in headers:
            headers = {name: value for name, value in headers.items() if name != ignored}
        return send(self, method, url, headers, *rest)

    monkeypatch.setattr(Client, "_send", without)
    assert copy(store, store, uri) is None
    monkeypatch.undo()
    assert account.objects(container) == before
    assert hashlib.md5(read(store, uri)).digest() == hashlib.md5(data).digest()


def test_an_image_that_is_damaged_by_the_copy(make, account, container, monkeypatch):
    """The ETag of an image of one object is that of its bytes: it is compared."""
    store = make(retry_timeout=0)
    uri = add(store, "image", b"data", 4)
    before = account.objects(container)
    original = store.original(locate(store, uri))
    assert original.etag == hashlib.md5(b"data").hexdigest()
    wrong = original._replace(etag="0" * 32)
    monkeypatch.setattr(store, "original", lambda _location: wrong)
    with pytest.raises(exceptions.BackendException, match="damaged"):
        copy(store, store, uri)
    assert account.objects(container) == before
