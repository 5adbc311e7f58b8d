# SPDX-License-Identifier: Apache-2.0
"""Data that changes on its way is no image: it is sent again, or the upload fails."""

from __future__ import annotations

import hashlib

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import check_bytes
from tests.drivers.swift.conftest import read
from tests.drivers.swift.uploads import WAYS, add, behind, count_way, options_of
from tests.faults.http import How

pytestmark = pytest.mark.services

SINGLE = [way for way in WAYS if not WAYS[way].target]


@pytest.mark.parametrize("way", WAYS)
def test_damaged_once(make, through, proxy, account, container, tmp_path, way):
    store = behind(make, through, **options_of(way, tmp_path))
    number, data = count_way(store, proxy, way)
    proxy.fail_request(number, how=How.DAMAGE)
    if not WAYS[way].kept:
        with pytest.raises(exceptions.RemoteServiceUnavailable, match="damaged"):
            add(store, "image", data)
        assert account.objects(container) == []
        return
    uri = add(store, "image", data)
    check_bytes(read(store, uri), data)


@pytest.mark.parametrize("way", WAYS)
def test_damaged_again_and_again(make, through, proxy, account, container, tmp_path, way):
    store = behind(make, through, **options_of(way, tmp_path))
    number, data = count_way(store, proxy, way)
    proxy.fail_request(number, how=How.DAMAGE, times=None)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="damaged"):
        add(store, "image", data)
    assert account.objects(container) == []


@pytest.mark.parametrize("lost", [How.RESET, How.TRUNCATE])
@pytest.mark.parametrize("way", SINGLE)
def test_damaged_and_nobody_said_so(make, through, proxy, account, container, tmp_path, way, lost):
    """The answer is lost as well: the object is in place, and it is the wrong one."""
    store = behind(make, through, **options_of(way, tmp_path))
    number, data = count_way(store, proxy, way)
    proxy.fail_request(number, how=How.DAMAGE)
    proxy.fail_request(number, how=lost, after=0)
    if WAYS[way].kept:
        check_bytes(read(store, add(store, "image", data)), data)
        return
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="damaged"):
        add(store, "image", data)
    assert account.objects(container) == []


def test_swift_refuses_damaged_objects_itself(make, through, proxy, account, container):
    """With the MD5 in the request they are never in place, not even for a moment."""
    store = behind(make, through, retry_timeout=0)
    number, data = count_way(store, proxy, "object")
    proxy.fail_request(number, how=How.DAMAGE)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="damaged"):
        add(store, "image", data)
    # Nothing had to be removed.
    assert "DELETE" not in [request.method for request in proxy.requests]


@pytest.mark.parametrize("way", SINGLE)
def test_lost_answer_of_an_undamaged_object(
    make, through, proxy, account, container, tmp_path, way
):
    """It is found in place, and need not be sent again."""
    store = behind(make, through, **options_of(way, tmp_path))
    number, data = count_way(store, proxy, way)
    proxy.fail_request(number, how=How.RESET, after=0)
    add(store, "image", data)
    puts = [request for request in proxy.requests if request.method == "PUT"]
    assert len(puts) == 1
    head = account.call("HEAD", f"/{container}/image")
    assert head.headers["etag"] == hashlib.md5(data).hexdigest()
