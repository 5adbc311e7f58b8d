# SPDX-License-Identifier: Apache-2.0
"""Faults of Cinder and Keystone that no real server can be made to show, from a fake one."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import threading
import time
import types
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers.cinder import (
    Store,
    StoreLocation,
    attachment,
    client,
    errors,
    holdings,
    host,
    volumes,
    writer,
)
from glance_store._drivers.cinder.device import FileDevice
from glance_store.location import Location
from glance_store.transfer.retry import Patience

MIB = 1024**2
VOLUME = "10f76c99-37c6-4308-befa-064709502cd9"
# Status, content type and body, and further headers.
Answer = tuple[int, str, bytes] | tuple[int, str, bytes, dict[str, str]]


@contextlib.contextmanager
def served(answer: Callable[[str, str], Answer]) -> Iterator[str]:
    """Serve HTTP on the loopback; yield the address.

    :param answer: gets method and path; returns status, content type, body, perhaps headers
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            # Closed with a part of the request unread, the connection is reset.
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, kind, body, *more = answer(self.command, self.path)
            self.send_response_only(status)
            for name, value in {"Date": self.date_time_string(), **dict(*more)}.items():
                self.send_header(name, value)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            # A client that waits no longer has hung up.
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def store_of(url: str) -> tuple[Store, Any]:
    """Return a store without credentials whose Cinder is at an address, and a request's context."""
    conf = cfg.ConfigOpts()
    store = Store(conf, "volumes")
    conf.set_override("cinder_endpoint_template", f"{url}/v3/p", group="volumes")
    return store, types.SimpleNamespace(auth_token="t", project_id="p", service_catalog=[])


def test_404_of_a_proxy_is_no_missing_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the image service forgets an image whose volume is there."""
    monkeypatch.setattr(errors.CinderGarbled, "patience", 0.0)
    pages: list[Answer] = [
        (404, "text/html", b"<html>no backend</html>"),
        (404, "application/json", b'{"itemNotFound": {"message": "no volume", "code": 404}}'),
    ]
    with served(lambda _method, _path: pages[0]) as url:
        store, context = store_of(url)
        own = volumes.Volumes(store._api(context))
        for use in (own.get, own.delete):
            with pytest.raises(errors.CinderGarbled):
                use(VOLUME)
        pages.pop(0)
        for use in (own.get, own.delete):
            with pytest.raises(exceptions.NotFound):
                use(VOLUME)


def test_passwords_of_a_netrc_file(sent_with_netrc: list[requests.PreparedRequest]) -> None:
    """requests sends them where a session does not say who asks."""
    found = json.dumps({"volume": {"id": VOLUME}}).encode()
    with served(lambda _method, _path: (200, "application/json", found)) as url:
        store, context = store_of(url)
        volumes.Volumes(store._api(context)).get(VOLUME)
    assert sent_with_netrc
    assert not any("Authorization" in request.headers for request in sent_with_netrc)


@pytest.mark.parametrize("status", [200, 301])
def test_page_of_a_proxy_is_no_success(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was deleted: what is attached would stay so. Cinder's own answer has no text."""
    monkeypatch.setattr(errors.CinderGarbled, "patience", 0.0)
    answers: list[Answer] = [(status, "text/html", b"<html>log in, please</html>")]
    with served(lambda _method, _path: answers[0]) as url:
        store, context = store_of(url)
        own = volumes.Volumes(store._api(context))
        with pytest.raises(errors.CinderGarbled):
            own.delete(VOLUME)
        answers[:] = [(202, "text/html; charset=UTF-8", b"")]
        own.delete(VOLUME)


def with_credentials(url: str, **options: object) -> Store:
    """Return a store with credentials whose Keystone is at an address."""
    conf = cfg.ConfigOpts()
    store = Store(conf, "volumes")
    names = ("user_name", "password", "project_name")
    plain = {f"cinder_store_{name}": "x" for name in names}
    for name, value in {**plain, "cinder_store_auth_address": url, **options}.items():
        conf.set_override(name, value, group="volumes")
    return store


def test_404_of_keystone_is_no_missing_volume() -> None:
    with served(lambda _method, _path: (404, "text/html", b"another site")) as url:
        own = volumes.Volumes(with_credentials(url)._api(None))
        with pytest.raises(errors.CinderError, match="404") as caught:
            own.get(VOLUME)
    assert not isinstance(caught.value, exceptions.NotFound)


@pytest.mark.parametrize("retries", [None, 3])
def test_start_while_keystone_is_silent(
    retries: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The volume type is looked for in vain once and not long; afterwards the options count."""
    monkeypatch.setattr(client, "_HURRIED", 0.3)
    asked: list[str] = []
    waited_for: list[str] = []
    over = threading.Event()

    def hang(method: str, _path: str) -> Answer:
        asked.append(method)
        if not over.wait(60):
            waited_for.append(method)
        return 500, "text/plain", b""

    with served(hang) as url:
        options: dict[str, object] = {"cinder_volume_type": "fast"}
        if retries is not None:
            options["cinder_http_retries"] = retries
        store = with_credentials(url, **options)
        store.configure(re_raise_bsc=True)
        over.set()
    assert (len(asked), waited_for) == (1, [])
    assert store._clients.settings.request_timeout == 180
    assert store._clients.settings.retries == retries


@pytest.mark.parametrize("status", [400, 403])
def test_volumes_that_may_not_be_listed(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """Older releases did not list them: an upload goes on without knowing others of its image."""
    volumes._warn_of_refusal.cache_clear()
    body = json.dumps({"badRequest": {"message": "Invalid filters name", "code": status}}).encode()
    with served(lambda _method, _path: (status, "application/json", body)) as url:
        store, context = store_of(url)
        own = volumes.Volumes(store._api(context))
        assert own.named("one") == own.named("two") == []
    assert caplog.text.count("Invalid filters name") == 1


@pytest.mark.parametrize("lag", [0.3, 60.0])
def test_new_volume_that_a_replica_does_not_know(
    lag: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was created: Cinder has said so."""
    monkeypatch.setattr(volumes, "_LAG", 1.0)
    began = time.monotonic()

    def answer(_method: str, _path: str) -> Answer:
        if time.monotonic() < began + lag:
            missing = {"itemNotFound": {"message": "no volume", "code": 404}}
            return 404, "application/json", json.dumps(missing).encode()
        record = {"volume": {"id": VOLUME, "status": "available"}}
        return 200, "application/json", json.dumps(record).encode()

    with served(answer) as url:
        store, context = store_of(url)
        own = volumes.Volumes(store._api(context))
        if lag > 1:
            with pytest.raises(exceptions.NotFound):
                own.wait(VOLUME, "available", ("creating",))
        else:
            assert own.wait(VOLUME, "available", ("creating",)).id == VOLUME


MISSING: Answer = (404, "application/json", b'{"itemNotFound": {"message": "none", "code": 404}}')


@pytest.mark.parametrize("afterwards", ["gone", "deleting", "available"])
def test_deletion_whose_answer_is_lost(afterwards: str) -> None:
    """It has worked: `NotFound` would say that there was no image. Else it is asked for again."""
    asked: list[str] = []

    def answer(method: str, _path: str) -> Answer:
        if method == "DELETE":
            asked.append(method)
            if len(asked) == 1:
                return 504, "text/html", b"<html>no answer in time</html>"
            return 202, "application/json", b""
        if afterwards == "gone":
            return MISSING
        record = {"volume": {"id": VOLUME, "status": afterwards, "attachments": []}}
        return 200, "application/json", json.dumps(record).encode()

    with served(answer) as url:
        store, context = store_of(url)
        volumes.Volumes(store._api(context)).delete(VOLUME)
    assert len(asked) == (2 if afterwards == "available" else 1)


class Growing(writer.CinderWriter):
    """A writer whose volume cannot grow."""

    def __init__(self, path: Path) -> None:
        self._room = threading.Condition()
        self._writing = 0
        self._extending = False
        self._capacity = MIB
        self._attachment = types.SimpleNamespace(device=FileDevice(str(path), writable=True))
        self._volume = types.SimpleNamespace(id=VOLUME, size=1)

    def _extend(self, _end: int) -> None:
        time.sleep(0.1)
        raise exceptions.StorageFull


def test_extension_that_fails_while_others_write(tmp_path: Path) -> None:
    """They fail as well, instead of waiting for a write that never began."""
    path = tmp_path / "volume"
    path.write_bytes(b"")
    growing, failed = Growing(path), []

    def write(number: int) -> None:
        try:
            growing.write(MIB + number * 10, memoryview(b"0123456789"))
        except exceptions.StorageFull:
            failed.append(number)

    threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(failed) == [0, 1, 2, 3]
    growing.write(0, memoryview(b"there is room for this"))
    assert os.path.getsize(path) == 22


BUSY = f"Volume {VOLUME} status must be available or downloading to reserve, but is in-use."


@pytest.mark.parametrize(("status", "words"), [(400, BUSY), (409, "conflict")])
def test_volume_that_stays_busy(status: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That passes: image services answer a download with 503 and not with 500."""
    monkeypatch.setattr(host.Host, "properties", lambda _self: {})

    def answer(method: str, path: str) -> Answer:
        record: dict[str, Any] = {"volume": {"id": VOLUME, "status": "in-use", "metadata": {}}}
        record["volume"] |= {"size": 1, "multiattach": False}
        # Reserving is refused, or works and connecting is refused, as another host was faster.
        if method == ("POST" if status == 400 else "PUT"):
            error = {"badRequest": {"message": words, "code": status}}
            return status, "application/json", json.dumps(error).encode()
        if method == "POST":
            record = {"attachment": {"id": VOLUME}}
        return 200, "application/json", json.dumps(record).encode()

    with served(answer) as url:
        store, context = store_of(url)
        store.conf.set_override("cinder_attachment_retry_attempts", 1, group="volumes")
        uri = Location("cinder", StoreLocation, store.conf, uri=f"cinder://{VOLUME}")
        with pytest.raises(exceptions.RemoteServiceUnavailable, match="stayed busy") as caught:
            store.get(uri, context=context)
    assert words in str(caught.value)


@pytest.mark.parametrize("record", [{"id": VOLUME}, {"id": VOLUME, "connection_info": None}])
def test_attachment_without_a_connection(
    record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such an answer makes no sense; the attachment is deleted."""
    monkeypatch.setattr(host.Host, "properties", lambda _self: {})
    monkeypatch.setattr(errors.CinderGarbled, "patience", 0.0)
    there: list[str] = []

    def answer(method: str, path: str) -> Answer:
        found: dict[str, Any] = {"volume": {"id": VOLUME, "status": "available", "metadata": {}}}
        found["volume"] |= {"size": 1, "multiattach": False}
        if "/attachments" in path:
            found = {"attachment": record}
            there.extend([path] if method == "POST" else [])
        if method == "DELETE":
            there.clear()
        return 200, "application/json", json.dumps(found).encode()

    with served(answer) as url:
        store, context = store_of(url)
        uri = Location("cinder", StoreLocation, store.conf, uri=f"cinder://{VOLUME}")
        with pytest.raises(errors.CinderGarbled):
            store.get(uri, context=context)
    assert there == []


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, {"error": "slow down"}),
        (503, {"errors": [{"title": "no backend"}]}),
        (503, "no backend"),
        (413, {"overLimit": {"message": "later"}}),
    ],
    ids=str,
)
def test_error_of_a_gateway(status: int, body: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text is not in the form of Cinder; its status and the time it asks for count."""
    waited: list[float] = []
    monkeypatch.setattr(Patience, "wait", lambda _self, seconds: waited.append(seconds))
    record = {"volume": {"id": VOLUME, "status": "available"}}
    # A fraction, and a day in another language, are more than cinderclient can read.
    headers = [{"Retry-After": "7"}, {"Retry-After": "Mo, 30 Nov 2026 10:00:08 GMT"}]
    for asked in headers:
        asked["Date"] = "Mon, 30 Nov 2026 10:00:01 GMT"
    answers = [(status, "application/json", json.dumps(body).encode(), asked) for asked in headers]
    answers.append((200, "application/json", json.dumps(record).encode(), {}))
    with served(lambda _method, _path: answers.pop(0)) as url:
        store, context = store_of(url)
        assert volumes.Volumes(store._api(context)).get(VOLUME).id == VOLUME
    assert len(waited) == 2
    assert min(waited) >= 7


@pytest.mark.parametrize(
    "body",
    [
        {"message": "no Route matched with those values"},
        {"code": "404 Not Found", "title": "Not Found", "message": "The resource is missing"},
    ],
    ids=["gateway", "wrong path of Cinder"],
)
def test_404_of_something_else_than_a_volume(body: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is wrong: the image service must not forget its images."""
    monkeypatch.setattr(errors.CinderGarbled, "patience", 0.0)
    answer: Answer = (404, "application/json", json.dumps(body).encode())
    with served(lambda _method, _path: answer) as url:
        store, context = store_of(url)
        own = volumes.Volumes(store._api(context))
        for use in (own.get, own.delete):
            with pytest.raises(errors.CinderGarbled):
                use(VOLUME)


def test_volume_that_vanishes_while_they_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cinder refuses to go on after a volume that was deleted; the one before it will do."""
    monkeypatch.setattr(holdings, "_PAGE", 2)
    there = [f"{number}{VOLUME[1:]}" for number in range(5)]

    def answer(_method: str, path: str) -> Answer:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)
        marker = query.get("marker", [""])[0]
        if marker and marker not in there:
            return MISSING
        begin = there.index(marker) + 1 if marker else 0
        page = [
            {"id": one, "name": "image-x", "status": "available", "metadata": {}, "size": 1}
            for one in there[begin : begin + 2]
        ]
        return 200, "application/json", json.dumps({"volumes": page}).encode()

    with served(answer) as url:
        store, context = store_of(url)
        found = []
        for one in holdings.images(store._api(context), "", str):
            found.append(one.uri)
            if len(found) == 2:
                there.remove(str(one.uri))
        assert [uri[0] for uri in found if uri] == ["0", "1", "2", "3", "4"]
        there.clear()
        assert list(holdings.images(store._api(context), "", str)) == []


def test_volume_of_a_failed_upload_that_cannot_be_looked_at() -> None:
    """Looking is what has failed the upload; the volume is still being created."""
    refused = [400, 400]
    asked: list[tuple[str, str]] = []

    def answer(method: str, path: str) -> Answer:
        asked.append((method, path.rpartition("/")[2].partition("?")[0]))
        if method == "DELETE":
            return (refused.pop() if refused else 202, "application/json", b"")
        if "attachments" in path:
            return 200, "application/json", b'{"attachments": []}'
        return 503, "text/plain", b"no database"

    with served(answer) as url:
        store, context = store_of(url)
        volumes.Volumes(store._api(context)).discard(VOLUME)
    assert asked.count(("DELETE", VOLUME)) == 3
    assert ("GET", VOLUME) not in asked


def test_reservation_whose_answer_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was made: left alone, nobody could read the volume any more."""
    monkeypatch.setattr(attachment, "_RESERVATION_LASTS", 0.2)
    there: list[str] = []
    over = threading.Event()

    def answer(method: str, path: str) -> Answer:
        if method == "POST":
            there.append("one")
            over.wait(60)
        if method == "DELETE":
            there.remove(path.rpartition("/")[2])
        found: dict[str, Any] = {"volume": {"id": VOLUME, "status": "available", "metadata": {}}}
        found["volume"] |= {"size": 1, "multiattach": False}
        if "/attachments" in path:
            found = {"attachments": [{"id": one, "status": "reserved"} for one in there]}
        return 200, "application/json", json.dumps(found).encode()

    with served(answer) as url:
        store, context = store_of(url)
        store.conf.set_override("cinder_request_timeout", 1, group="volumes")
        uri = Location("cinder", StoreLocation, store.conf, uri=f"cinder://{VOLUME}")
        with pytest.raises(exceptions.TimeoutError, match="cinder_request_timeout"):
            store.get(uri, context=context)
        over.set()
    assert there == []


def test_volume_that_goes_while_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never gets free again: the image is gone."""
    statuses = ["in-use", "deleting"]

    def answer(method: str, _path: str) -> Answer:
        if method == "POST":
            error = {"badRequest": {"message": BUSY, "code": 400}}
            return 400, "application/json", json.dumps(error).encode()
        record: dict[str, Any] = {"volume": {"id": VOLUME, "metadata": {}, "size": 1}}
        record["volume"] |= {"multiattach": False, "status": statuses.pop(0)}
        return 200, "application/json", json.dumps(record).encode()

    with served(answer) as url:
        store, context = store_of(url)
        uri = Location("cinder", StoreLocation, store.conf, uri=f"cinder://{VOLUME}")
        with pytest.raises(exceptions.NotFound, match="deleting"):
            store.get(uri, context=context)


@pytest.mark.parametrize("body", [{"limits": {}}, {"limits": {"absolute": {}}}, None], ids=str)
def test_health_without_figures(body: object) -> None:
    """Who may not see the limits of the project can store images all the same."""
    refused = {"forbidden": {"message": "not allowed by policy", "code": 403}}
    status = 403 if body is None else 200

    def answer(_method: str, _path: str) -> Answer:
        return status, "application/json", json.dumps(body or refused).encode()

    with served(answer) as url:
        store, context = store_of(url)
        api = store._api(context)
        store._api = lambda *_arguments: api  # type: ignore[method-assign]
        for name in ("user_name", "password", "project_name", "auth_address"):
            store.conf.set_override(f"cinder_store_{name}", url, group="volumes")
        assert store.check_health().startswith("ok")
        figures = {"maxTotalVolumeGigabytes": 10, "totalGigabytesUsed": 10}
        status, body = 200, {"limits": {"absolute": figures}}
        with pytest.raises(exceptions.StorageFull, match="All 10 GiB"):
            store.check_health()


def test_volume_that_is_detached_slowly() -> None:
    """A balancer gave up waiting, and so Cinder did not: what follows has to wait for it."""
    statuses = ["in-use", "detaching", "available"]
    done: list[str] = []

    def answer(method: str, path: str) -> Answer:
        record: dict[str, Any] = {"id": VOLUME, "metadata": {}, "size": 1, "name": "image-x"}
        record |= {"status": statuses[0], "volume_type": "plain"}
        if method == "GET" and "/detail" in path:
            return 200, "application/json", json.dumps({"volumes": [record]}).encode()
        if method == "GET":
            statuses[:] = statuses[1:] or statuses
        elif "/action" in path and statuses[0] != "available":
            error = {"badRequest": {"message": "status must be available", "code": 400}}
            return 400, "application/json", json.dumps(error).encode()
        done.append(path.rpartition("/")[2])
        return 200, "application/json", json.dumps({"volume": record, "metadata": {}}).encode()

    with served(answer) as url:
        store, context = store_of(url)
        slow = object.__new__(writer.CinderWriter)
        slow._volumes = volumes.Volumes(store._api(context))
        slow._volume = types.SimpleNamespace(id=VOLUME, size=1, volume_type="plain")
        slow._attachment = types.SimpleNamespace(  # type: ignore[assignment]
            device=types.SimpleNamespace(flush=lambda: None), detach=lambda: None
        )
        slow._capacity, slow._image_id, slow._marks = MIB, "x", {volumes.STORE: ""}
        slow.commit(1)
    assert done[-2:] == ["action", "metadata"]
