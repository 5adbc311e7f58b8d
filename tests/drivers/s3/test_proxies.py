# SPDX-License-Identifier: Apache-2.0
"""A proxy between the store and the service."""

from __future__ import annotations

import contextlib
import http.client
import logging
import urllib.parse
from typing import TYPE_CHECKING

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import check_bytes, image
from tests.drivers.s3.loopback import Recorder, close
from tests.services.http_server import PATIENCE, Answer, Request, deaf_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.drivers.s3.conftest import Images
    from tests.drivers.s3.service import Service

pytestmark = pytest.mark.services

MIB = 1024 * 1024
# What concerns one connection alone.
_OWN = ("connection", "date", "proxy-authorization", "server", "transfer-encoding")


def forward(request: Request, body: bytes) -> Answer:
    """Pass a request on, as a proxy does that is told the whole address."""
    target = urllib.parse.urlsplit(request.target)
    headers = {name: value for name, value in request.headers.items() if name not in _OWN}
    upstream = http.client.HTTPConnection(target.netloc, timeout=PATIENCE)
    with contextlib.closing(upstream):
        path = request.target.partition(target.netloc)[2]
        upstream.request(request.method, path, body, headers)
        answer = upstream.getresponse()
        passed = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN}
        return Answer(answer.status, answer.read(), passed)


@pytest.fixture
def forwarder() -> Iterator[Recorder]:
    with Recorder(forward) as server:
        yield server


def check_transfer(images: Images) -> None:
    data = image(6 * MIB)
    uri = images.add("proxied", data)
    check_bytes(images.read(uri), data)
    check_bytes(images.read(uri, offset=5, chunk_size=100), data[5:105])
    images.delete(uri)
    close(images)


def test_all_requests_take_the_proxy(
    make: Callable[..., Images],
    service: Service,
    forwarder: Recorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They name the service in full, and the password of the proxy is for the proxy alone."""
    caplog.set_level(logging.DEBUG)
    address = forwarder.url.replace("//", "//user:canary@")
    check_transfer(make(s3_store_host=service.url, s3_store_proxies={"http": address}))
    assert {request.method for request in forwarder.requests} >= {"HEAD", "PUT", "GET", "DELETE"}
    for request in forwarder.requests:
        assert request.target.startswith(f"{service.url}/")
        assert request.headers["proxy-authorization"].startswith("Basic ")
    assert "canary" not in caplog.text


def test_proxy_without_a_scheme(
    make: Callable[..., Images], service: Service, forwarder: Recorder
) -> None:
    proxies = {"http": forwarder.url.partition("//")[2]}
    check_transfer(make(s3_store_host=service.url, s3_store_proxies=proxies))
    assert forwarder.requests


@pytest.mark.parametrize("excepted", [False, True])
def test_proxy_of_the_environment(
    make: Callable[..., Images],
    service: Service,
    forwarder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    excepted: bool,
) -> None:
    monkeypatch.setenv("http_proxy", forwarder.url)
    if excepted:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
    check_transfer(make(s3_store_host=service.url))
    assert bool(forwarder.requests) != excepted


def test_proxies_of_the_store_overrule_the_environment(
    make: Callable[..., Images],
    service: Service,
    forwarder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with deaf_port() as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        check_transfer(make(s3_store_host=service.url, s3_store_proxies={"http": forwarder.url}))
    assert forwarder.requests


def test_proxy_that_is_not_there(make: Callable[..., Images], service: Service) -> None:
    with deaf_port() as port:
        proxies = {"http": f"http://user:canary@127.0.0.1:{port}"}
        images = make(s3_store_host=service.url, s3_store_proxies=proxies)
        with pytest.raises(exceptions.RemoteServiceUnavailable, match="s3_store_proxies") as caught:
            images.add("proxied", b"data")
    assert "canary" not in str(caught.value)
    close(images)
