# SPDX-License-Identifier: Apache-2.0
"""The target of a request is sent as the location has it: a signature may cover each byte."""

from __future__ import annotations

import pytest

from tests.drivers.http.raw_server import RawServer, head
from tests.services.http_server import File

ANSWER = head("200 OK", "Content-Length: 5") + b"image"

AS_GIVEN = [
    "/a%7Eb?sig=%2b%7e",
    "/a%2fb%2F",
    "/a/../b",
    "/a/./b",
    "/../../b",
    "/%2e%2E/b",
    "//a//b",
    "//",
    "/a;b;c=1",
    "/a;",
    "/a?",
    "/a??b",
    "/a?b=c&d=[e]&f={g}|h^i`j\\k\"l<m>n'o",
    "/100%zz",
    "/100%",
    "/~a!$&'()*+,;=:@",
    "/a?next=http://other/..//./x",
]


@pytest.fixture
def server():
    with RawServer(ANSWER) as server:
        yield server


@pytest.mark.parametrize("target", AS_GIVEN)
def test_as_it_was_given(server, http, target):
    assert http.read(server.url + target) == b"image"
    assert http.size(server.url + target) == 5
    assert server.targets == [target] * 2
    assert set(server.hosts) == {f"127.0.0.1:{server.port}"}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("", "/"),
        ("?a=b", "/?a=b"),
        ("/a#fragment", "/a"),
        ("/a b?c d", "/a%20b?c%20d"),
        ("/é?€", "/%C3%A9?%E2%82%AC"),
        ("/é%e9", "/%C3%A9%e9"),
    ],
)
def test_what_a_request_cannot_contain_is_encoded(server, http, given, sent):
    assert http.read(server.url + given) == b"image"
    assert server.targets == [sent]


@pytest.mark.parametrize("target", ["/a%7Eb?sig=%2b%7e", "/a/../b", "//a", "/100%zz?"])
def test_through_a_proxy(http_store, target):
    with RawServer(ANSWER) as proxy:
        http = http_store(http_proxy_information={"http": f"127.0.0.1:{proxy.port}"})
        assert http.read(f"http://images.invalid:8080{target}") == b"image"
        assert http.read(f"http://images.invalid{target}") == b"image"
        assert proxy.targets == [
            f"http://images.invalid:8080{target}",
            f"http://images.invalid{target}",
        ]
        assert proxy.hosts == ["images.invalid:8080", "images.invalid"]


def test_over_tls(tls_web, http_store, authority_file):
    http = http_store(https_ca_certificates_file=authority_file)
    tls_web.serve("/a%7Eb/../c", File(b"image"))
    assert http.read(tls_web.url("/a%7Eb/../c?sig=%2b")) == b"image"
    assert [request.target for request in tls_web.requests] == ["/a%7Eb/../c?sig=%2b"]


@pytest.mark.parametrize("target", ["/a%7Eb?sig=%2b%7e", "/a/%2e%2e/b?", "/100%zz"])
def test_of_a_redirect(server, http, target):
    with RawServer(head("302 Found", f"Location: {server.url}{target}")) as first:
        assert http.read(f"{first.url}/image") == b"image"
    assert server.targets == [target]


def test_dots_of_a_relative_redirect_are_resolved(server, http):
    with RawServer(
        lambda line: (
            ANSWER
            if "/b" in line
            else head("302 Found", "Location: ../b/%7E?%2b", "Content-Length: 0")
        )
    ) as first:
        assert http.read(f"{first.url}/x/../%7Ea/image") == b"image"
        assert first.targets == ["/x/../%7Ea/image", "/b/%7E?%2b"]


@pytest.mark.parametrize("scheme", ["HTTP", "Http", "hTTp"])
def test_the_scheme_in_capitals(server, http, scheme):
    uri = f"{scheme}://127.0.0.1:{server.port}/A%7Eb"
    assert http.read(uri) == b"image"
    assert http.size(uri) == 5
    assert server.targets == ["/A%7Eb"] * 2
