# SPDX-License-Identifier: Apache-2.0
"""Images in one account: how they are stored, found and removed."""

from __future__ import annotations

import hashlib
import io
import json
import re
import urllib.parse
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers.swift import large
from glance_store.testing import image
from glance_store.testing.inputs import Source
from tests.drivers.swift.conftest import SEGMENT, locate, read, say

if TYPE_CHECKING:
    from glance_store._drivers.swift import BaseStore
    from tests.drivers.swift.account import Account

pytestmark = pytest.mark.services

SIZE = 2 * SEGMENT + 7


def add(store: BaseStore, image_id: str, data: bytes, known: bool = True) -> str:
    size = len(data) if known else 0
    uri, stored, checksum, multihash, metadata = store.add(
        image_id, io.BytesIO(data), size, "sha256"
    )
    assert stored == len(data)
    assert checksum == hashlib.md5(data).hexdigest()
    assert multihash == hashlib.sha256(data).hexdigest()
    assert metadata == {"store": "swift"}
    return str(uri)


# What is stored.


def test_small_image_is_one_object(store, account, container):
    image_id = str(uuid.uuid4())
    data = image(1000)
    uri = add(store, image_id, data)
    assert account.objects(container) == [image_id]
    head = account.call("HEAD", f"/{container}/{image_id}")
    assert head.headers["etag"] == hashlib.md5(data).hexdigest()
    assert store.get_size(locate(store, uri)) == 1000
    store.delete(locate(store, uri))
    assert account.objects(container) == []


@pytest.mark.parametrize("known", [True, False], ids=["known-size", "unknown-size"])
def test_large_image_is_static(store, account, container, known):
    image_id = str(uuid.uuid4())
    data = image(SIZE)
    uri = add(store, image_id, data, known)
    names = account.objects(container)
    assert names[0] == image_id
    assert len(names) == 4
    assert all(re.fullmatch(rf"{image_id}-[0-9a-f]{{16}}-\d{{5}}", name) for name in names[1:])
    found = account.call("GET", f"/{container}/{image_id}?multipart-manifest=get&format=raw")
    entries = json.loads(found.body)
    assert [entry["size_bytes"] for entry in entries] == [SEGMENT, SEGMENT, 7]
    assert [entry["path"] for entry in entries] == [f"/{container}/{name}" for name in names[1:]]
    parts = [data[:SEGMENT], data[SEGMENT : 2 * SEGMENT], data[2 * SEGMENT :]]
    assert [entry["etag"] for entry in entries] == [hashlib.md5(p).hexdigest() for p in parts]
    assert read(store, uri) == data
    # Regression 90: the segments go as well.
    store.delete(locate(store, uri))
    assert account.objects(container) == []


@pytest.mark.usefixtures("no_static")
def test_large_image_is_dynamic_where_there_are_no_static_ones(store, account, container):
    image_id = str(uuid.uuid4())
    data = image(SIZE)
    uri = add(store, image_id, data)
    head = account.call("HEAD", f"/{container}/{image_id}")
    place = urllib.parse.unquote(head.headers["x-object-manifest"])
    names = account.objects(container)
    assert place == names[1].removesuffix("00001").join([f"{container}/", ""])
    assert [name.rpartition("-")[2] for name in names[1:]] == ["00001", "00002", "00003"]
    assert read(store, uri) == data
    assert read(store, uri, offset=SEGMENT - 3, chunk_size=10) == data[SEGMENT - 3 : SEGMENT + 7]
    store.delete(locate(store, uri))
    assert account.objects(container) == []


def test_image_past_the_limit_of_static_ones_is_dynamic(store, account, container, monkeypatch):
    say(monkeypatch, static=large.Static(2, 10**6, 1))
    uri = add(store, "image", image(SIZE), known=False)
    head = account.call("HEAD", f"/{container}/image")
    assert "x-object-manifest" in head.headers
    assert read(store, uri) == image(SIZE)


def test_r092_no_empty_segment(store, account, container):
    """A size that is a multiple of the segments' makes no empty one, an empty image none at all."""
    add(store, "exact", image(2 * SEGMENT), known=False)
    assert len(account.objects(container)) == 3
    uri = add(store, "empty", b"", known=False)
    assert [name for name in account.objects(container) if "empty" in name] == ["empty"]
    assert read(store, uri) == b""
    assert store.get_size(locate(store, uri)) == 0


def test_r093_r096_r097_get_yields_bytes_until_the_end(store):
    uri = add(store, "image", image(SIZE))
    chunks, _size = store.get(locate(store, uri))
    assert all(type(chunk) is bytes and chunk for chunk in chunks)
    assert next(chunks, b"") == b""


@pytest.mark.parametrize("announced", [SIZE - 1, SIZE + 1, 10, SEGMENT])
def test_r111_r116_r117_wrong_size_leaves_nothing(store, account, container, announced):
    with pytest.raises(exceptions.Invalid, match="Size"):
        store.add("image", io.BytesIO(image(SIZE)), announced, "sha256")
    assert account.objects(container) == []


def test_r117_invalid_of_the_source_of_a_small_image(store, account, container):
    error = exceptions.Invalid("the user's quota")
    with pytest.raises(exceptions.Invalid) as caught:
        store.add("image", Source(b"", end=error), 100, "sha256")
    assert caught.value is error
    assert account.objects(container) == []


def test_existing_image_is_not_touched(store, account, container):
    old = image(SIZE)
    uri = add(store, "image", old)
    before = account.objects(container)
    for new in (image(10), image(SIZE, seed=1)):
        source = Source(new)
        with pytest.raises(exceptions.Duplicate):
            store.add("image", source, len(new), "sha256")
        assert source.position == 0, "data was read for nothing"
    assert account.objects(container) == before
    assert read(store, uri) == old


def test_segments_of_a_killed_upload_do_no_harm(store, account, container):
    """What is left of an older upload of this id becomes no part of the image."""
    add(store, "other", image(10))
    for name in ("image-00001", "image-00007", "image-0123456789abcdef-00001"):
        account.call("PUT", f"/{container}/{name}", b"left behind")
    uri = add(store, "image", image(SIZE))
    assert read(store, uri) == image(SIZE)


def test_missing_container(make, account, container):
    store = make(create_container_on_put=False)
    with pytest.raises(exceptions.BackendException, match="create_container_on_put"):
        store.add("image", io.BytesIO(b"data"), 4, "sha256")
    assert account.containers(container) == []


def test_containers_by_seed(make, account, container):
    store = make(multiple_containers_seed=10)
    image_id = "FB4B8B6A-3a1e-4d16-8b2c-0a1f4c0b7a11"
    uri = add(store, image_id, image(10))
    expected = f"{container}_fb4b8b6a-3a"
    assert account.containers(container) == [expected]
    assert uri.startswith(store.url_prefix)
    assert uri.endswith(f"/{expected}/{image_id}")
    assert read(store, uri) == image(10)


# Images of releases before this one.


def put_dynamic(account: Account, container: str, name: str, parts: list[bytes]) -> None:
    for number, part in enumerate(parts, 1):
        account.call("PUT", f"/{container}/{name}-{number:05d}", part)
    headers = {"X-Object-Manifest": f"{container}/{name}-"}
    account.call("PUT", f"/{container}/{name}", b"", headers)


def address_of(store: BaseStore, container: str, name: str) -> str:
    return f"{store.url_prefix}{name}"


def test_r121_old_dynamic_image_of_many_segments(store, account, container):
    account.call("PUT", f"/{container}")
    parts = [bytes([number]) * 100 for number in range(1, 12)]
    put_dynamic(account, container, "old", parts)
    account.call("PUT", f"/{container}/older-00001", b"of another image")
    uri = address_of(store, container, "old")
    assert read(store, uri) == b"".join(parts)
    assert read(store, uri, offset=95, chunk_size=10) == b"\1" * 5 + b"\2" * 5
    store.delete(locate(store, uri))
    assert account.objects(container) == ["older-00001"]


def test_old_static_image(store, account, container):
    account.call("PUT", f"/{container}")
    entries = []
    for number in range(1, 4):
        data = bytes([number]) * 100
        account.call("PUT", f"/{container}/old-{number:05d}", data)
        etag = hashlib.md5(data).hexdigest()
        path = f"/{container}/old-{number:05d}"
        entries.append({"path": path, "etag": etag, "size_bytes": 100})
    account.call("PUT", f"/{container}/old?multipart-manifest=put", json.dumps(entries).encode())
    uri = address_of(store, container, "old")
    assert read(store, uri, offset=150) == b"\2" * 50 + b"\3" * 100
    store.delete(locate(store, uri))
    assert account.objects(container) == []


def test_r091_missing_segment_does_not_stop_the_deletion(store, account, container):
    account.call("PUT", f"/{container}")
    put_dynamic(account, container, "old", [b"1", b"2", b"3"])
    uri = address_of(store, container, "old")
    account.call("DELETE", f"/{container}/old-00002")
    store.delete(locate(store, uri))
    new = add(store, "new", image(SIZE))
    segment = account.objects(container)[2]
    account.call("DELETE", f"/{container}/{segment}")
    store.delete(locate(store, new))
    assert account.objects(container) == []
    with pytest.raises(exceptions.NotFound):
        store.delete(locate(store, new))


def test_r118_size_of_a_missing_image(store, account, container):
    with pytest.raises(exceptions.NotFound):
        store.get_size(locate(store, address_of(store, container, "nothing")))


def test_image_that_is_replaced_while_it_is_read(store, account, container):
    uri = add(store, "image", image(100))
    reader = store.open_reader(locate(store, uri))
    account.call("PUT", f"/{container}/image", image(100, seed=1))
    with pytest.raises(exceptions.BackendException, match="replaced"):
        reader.read_at(0, 100)
    reader.close()


# Ways of an upload: what is held in memory, and what is not.


WAYS: dict[str, dict[str, Any]] = {
    "one-after-the-other": {"thread_pool_size": 1},
    "streamed-and-kept": {"memory": 24, "large_object_chunk_size": 13},
    "streamed": {"memory": 16, "large_object_chunk_size": 17},
    "one-large-object-kept": {"large_object_size": 100},
    "one-large-object": {"large_object_size": 100, "memory": 16},
    "buffered": {"swift_buffer_on_upload": True},
}


@pytest.mark.parametrize("known", [True, False], ids=["known-size", "unknown-size"])
@pytest.mark.parametrize("way", WAYS)
def test_ways_of_an_upload(make, account, container, tmp_path, way, known):
    options = dict(WAYS[way])
    if way == "buffered":
        options["swift_upload_buffer_dir"] = str(tmp_path)
    store = make(**options)
    data = image(18 * SEGMENT + 13)
    uri = add(store, "image", data, known)
    assert read(store, uri) == data
    assert list(tmp_path.iterdir()) == []
    store.delete(locate(store, uri))
    for announced in (len(data) - 1, len(data) + 1):
        with pytest.raises(exceptions.Invalid):
            store.add("image", io.BytesIO(data), announced, "sha256")
    assert account.objects(container) == []


# Accounts.


def test_r105_config_file(make, account, container, keystone, tmp_path):
    service = keystone.accounts["glance"]
    file = tmp_path / "references.conf"
    file.write_text(
        f"[images]\nauth_address = '{keystone.auth_url}/'\n"
        f'user = "{service.project}:{service.user}"\nkey = "{service.password}"\n'
        "user_domain_name = Default\nproject_domain_name = Default\n"
    )
    store = make(swift_store_config_file=str(file), default_swift_reference="images")
    uri = add(store, "image", image(SIZE))
    assert uri == f"swift+config://images/{container}/image"
    assert uri.startswith(store.url_prefix)
    assert read(store, uri) == image(SIZE)
    store.delete(locate(store, uri))


@pytest.mark.parametrize("ending", ["", "/", "/v3", "/v3/", "/v2.0/"])
def test_r110_r114_endings_of_the_auth_address(make, keystone, ending):
    store = make(auth_address=keystone.auth_url.removesuffix("/v3") + ending)
    uri = add(store, "image", image(10))
    assert read(store, uri) == image(10)
    store.delete(locate(store, uri))


def test_application_credential(make, keystone, container):
    made = keystone.application_credential("glance", f"of-{container}")
    store = make(
        application_credential_id=made.id,
        application_credential_secret=made.secret,
        user=None,
        key=None,
    )
    uri = add(store, "image", image(SIZE))
    # No secret can stand in the location: the account is named.
    assert uri == f"swift+config://ref1/{container}/image"
    assert read(store, uri) == image(SIZE)
    store.delete(locate(store, uri))


@pytest.mark.parametrize("project", ["images@example.org", "a b/c?d#e%41", "Bilder-\u00e4\u00f6"])
def test_odd_names_of_projects(make, keystone, swift, project):
    name, password = f"user@{uuid.uuid4().hex[:8]}", "p@ss:w/o?rd"
    administrator = keystone.administrator
    project += uuid.uuid4().hex[:8]
    project_id = administrator._create("project", name=project, domain_id="default")
    user_id = administrator._create("user", name=name, password=password, domain_id="default")
    administrator.grant(user_id, project_id, "swiftoperator")
    store = make(user=f"{project}:{name}", key=password)
    uri = add(store, "image", image(10))
    assert read(make(), uri) == image(10)
    make().delete(locate(store, uri))


def test_wrong_password(make, account, container):
    store = make(key="wrong-secret")
    with pytest.raises(exceptions.BackendException, match="401") as caught:
        store.add("image", io.BytesIO(b"data"), 4, "sha256")
    assert "wrong-secret" not in str(caught.value)


def test_r099_endpoint_overrides_the_catalogue(make, swift, keystone, container):
    other = swift.storage_url("tenant-a")
    store = make(endpoint=other, create_container_on_put=False)
    # The service is no operator of that account.
    with pytest.raises(exceptions.BackendException, match="403"):
        store.add("image", io.BytesIO(b"data"), 4, "sha256")


def test_region_without_an_endpoint(make):
    store = make(region="Nowhere")
    with pytest.raises(exceptions.BackendException, match="swift_store_region"):
        store.add("image", io.BytesIO(b"data"), 4, "sha256")


def test_connection_of_the_caller(store, make):
    import swiftclient

    uri = add(store, "image", image(SIZE))
    place = locate(store, uri).store_location
    client = store._client(place, None)
    connection = swiftclient.Connection(
        preauthurl=client.account.url, preauthtoken=client.account.token()
    )
    assert read(make(key="wrong"), uri, connection=connection) == image(SIZE)


def test_health(store, make, keystone):
    with pytest.raises(exceptions.GlanceStoreException):
        make(create_container_on_put=False).check_health()
    assert "static (up to 1000 segments)" in store.check_health()
