# SPDX-License-Identifier: Apache-2.0
"""The operator's filter: which servers and ports a store talks to, at each hop and connection."""

from __future__ import annotations

import logging
import socket

import pytest

from glance_store import exceptions
from tests.drivers.http.raw_server import RawServer, head
from tests.services.http_server import File, redirect

IMAGE = bytes(range(256)) * 40
ANSWER = head("200 OK", "Content-Length: 5") + b"image"


@pytest.fixture
def names(monkeypatch):
    """Names of `.test` with the addresses to give at the first, the second ... look-up."""
    known = {}
    real = socket.getaddrinfo

    def look_up(host, port, *args, **kwargs):
        if host not in known or kwargs.get("flags") == socket.AI_NUMERICHOST:
            return real(host, port, *args, **kwargs)
        answers = known[host]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            entry for address in answer for entry in real(address, port, type=socket.SOCK_STREAM)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def refused(http, uri, words="http_store_allowed_hosts"):
    for action in (http.get, http.size):
        with pytest.raises(exceptions.BadStoreUri, match=words) as caught:
            action(uri)
        assert "operator" in str(caught.value)


def test_by_default_all_servers_are_allowed(web, http):
    assert http.read(web.serve("/image", IMAGE)) == IMAGE


@pytest.mark.parametrize(
    "allowed",
    [
        "127.0.0.1",
        "127.0.0.0/8",
        "127.0.0.5/8",
        "10.0.0.0/8,127.0.0.1,::1",
        "*.example.org,0.0.0.0/0",
    ],
)
def test_an_allowed_network(web, http_store, allowed):
    http = http_store(http_store_allowed_hosts=allowed)
    uri = web.serve("/image", IMAGE)
    assert http.read(uri) == IMAGE
    assert http.size(uri) == len(IMAGE)
    # By the address of the name.
    assert http.read(web.url("/image", host="localhost")) == IMAGE


@pytest.mark.parametrize(
    "allowed", ["10.0.0.0/8", "::1", "example.org", "*.localhost", "127.0.0.2"]
)
def test_a_server_that_is_not_allowed(web, http_store, allowed):
    http = http_store(http_store_allowed_hosts=allowed)
    web.serve("/image", IMAGE)
    refused(http, web.url("/image", "user:SECRET@") + "?SECRET")
    refused(http, web.url("/image", host="localhost"))
    assert web.accepted == 0


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "0", "localhost",
     "LOCALHOST", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]"],
)  # fmt: skip
def test_a_disallowed_network_under_each_of_its_names(web, http_store, host):
    http = http_store(http_store_disallowed_hosts="127.0.0.0/8,::1")
    web.serve("/image", IMAGE)
    with pytest.raises(exceptions.BadStoreUri):
        http.get(web.url("/image", host=host))
    assert web.accepted == 0


@pytest.mark.parametrize("entry", ["images.test", "*.test", "IMAGES.Test.", "127.0.0.0/8"])
@pytest.mark.parametrize("host", ["images.test", "Images.TEST"])
def test_a_disallowed_name(web, http_store, names, entry, host):
    names["images.test"] = names["Images.TEST"] = [["127.0.0.1"]]
    uri = web.url("/image", host=host)
    web.serve("/image", IMAGE)
    assert http_store().read(uri) == IMAGE
    assert http_store(http_store_allowed_hosts=entry).read(uri) == IMAGE
    accepted = web.accepted
    # Precedence over what is allowed.
    for allowed in ("", entry, "0.0.0.0/0"):
        options = {"http_store_allowed_hosts": allowed, "http_store_disallowed_hosts": entry}
        refused(http_store(**options), uri)
    assert web.accepted == accepted


def test_a_domain_is_not_what_ends_like_it(web, http_store, names):
    names.update({name: [["127.0.0.1"]] for name in ("b.test", "a.b.test", "ab.test")})
    http = http_store(http_store_allowed_hosts="*.b.test")
    web.serve("/image", IMAGE)
    assert http.read(web.url("/image", host="a.b.test")) == IMAGE
    for host in ("b.test", "ab.test"):
        refused(http, web.url("/image", host=host))


def test_the_ports(web, other_web, http_store):
    web.serve("/image", IMAGE)
    other_web.serve("/image", IMAGE)
    for options in (
        {"http_store_allowed_ports": [web.port]},
        {"http_store_disallowed_ports": f"22,{other_web.port}"},
        {
            "http_store_allowed_ports": [web.port, other_web.port],
            "http_store_disallowed_ports": [other_web.port],
        },
    ):
        http = http_store(**options)
        assert http.read(web.url("/image")) == IMAGE
        refused(http, other_web.url("/image"), f"port {other_web.port}")
    assert other_web.accepted == 0


def test_the_port_of_the_scheme(http_store):
    http = http_store(http_store_allowed_ports="8080")
    refused(http, "http://127.0.0.1/image", "port 80 ")
    refused(http, "https://127.0.0.1/image", "port 443 ")


@pytest.mark.parametrize(
    "options",
    [
        {"http_store_disallowed_hosts": "127.0.0.2"},
        {"http_store_allowed_hosts": "127.0.0.1"},
        {"http_store_disallowed_hosts": "inner.test"},
    ],
)
def test_each_hop_is_checked(web, http_store, names, options):
    names["inner.test"] = [["127.0.0.2"]]
    with RawServer(ANSWER, "127.0.0.2") as inner:
        web.serve("/image", redirect(f"http://inner.test:{inner.port}/image"))
        web.serve("/first", redirect("/image"))
        assert http_store().read(web.url("/first")) == b"image"
        refused(http_store(**options), web.url("/first"))
        assert inner.accepted == 1


def test_the_port_of_each_hop_is_checked(web, other_web, http_store):
    http = http_store(http_store_allowed_ports=[web.port])
    refused(http, web.serve("/image", redirect(other_web.serve("/image", IMAGE))), "port")
    assert other_web.accepted == 0


@pytest.mark.parametrize(
    "options",
    [
        {"http_store_disallowed_hosts": "127.0.0.2"},
        {"http_store_allowed_hosts": "127.0.0.1"},
        {"http_store_allowed_hosts": "*.test", "http_store_disallowed_hosts": "127.0.0.2/31"},
    ],
)
def test_a_second_look_up_changes_nothing(http_store, names, options):
    # The name of an attacker: harmless when it is checked, another host when it is connected to.
    names["images.test"] = [["127.0.0.1"], ["127.0.0.2"]]
    with RawServer(ANSWER) as outer, RawServer(ANSWER, "127.0.0.2", outer.port) as inner:
        http = http_store(**options)
        uri = f"http://images.test:{outer.port}/image"
        assert http.read(uri) == b"image"
        assert outer.hosts == [f"images.test:{outer.port}"]
        # The next connection is checked anew.
        refused(http, uri)
        assert inner.accepted == 0


def test_only_allowed_addresses_of_a_name_are_tried(http_store, names):
    names["images.test"] = [["127.0.0.2", "127.0.0.3", "127.0.0.1"]]
    with RawServer(ANSWER) as outer, RawServer(ANSWER, "127.0.0.2", outer.port) as inner:
        # Nobody listens on the second one.
        http = http_store(http_store_disallowed_hosts="127.0.0.2")
        assert http.read(f"http://images.test:{outer.port}/image") == b"image"
        assert (inner.accepted, outer.accepted) == (0, 1)


def test_no_address_of_a_name_can_be_reached(http_store, names):
    names["images.test"] = [["127.0.0.2", "127.0.0.3"]]
    http = http_store(http_store_disallowed_hosts="10.0.0.0/8")
    with (
        RawServer(ANSWER) as other,
        pytest.raises(exceptions.RemoteServiceUnavailable, match="refused"),
    ):
        http.get(f"http://images.test:{other.port}/image")


def test_a_name_that_cannot_be_looked_up(http_store, names):
    names["images.test"] = [None]
    http = http_store(http_store_disallowed_hosts="10.0.0.0/8")
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="not known"):
        http.get("http://images.test/image")


def test_a_certificate_is_still_checked_by_name(http_store, names, authority, authority_file):
    import ssl

    from tests.services.http_server import WebServer

    names.update({"images.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("images.test").configure_cert(context)
    http = http_store(
        https_ca_certificates_file=authority_file, http_store_allowed_hosts="127.0.0.0/8"
    )
    with WebServer(context) as server:
        server.serve("/image", IMAGE)
        assert http.read(server.url("/image", host="images.test")) == IMAGE
        with pytest.raises(exceptions.RemoteServiceUnavailable, match=r"other\.test"):
            http.get(server.url("/image", host="other.test"))


def test_a_resumed_download_is_checked_too(web, http_store, names):
    from tests.services.http_server import cutting, in_turn

    names["images.test"] = [["127.0.0.1"], ["127.0.0.2"]]
    http = http_store(http_store_disallowed_hosts="127.0.0.2")
    http.store.READ_CHUNKSIZE = 1000
    web.serve("/image", in_turn(cutting(File(IMAGE), 2000), File(IMAGE)))
    with pytest.raises(exceptions.BadStoreUri, match="operator"):
        http.read(web.url("/image", host="images.test"))


@pytest.mark.parametrize(
    ("options", "host", "fine"),
    [
        ({"http_store_allowed_hosts": "*.invalid"}, "images.invalid", True),
        ({"http_store_allowed_hosts": "*.invalid"}, "images.example", False),
        ({"http_store_disallowed_hosts": "*.invalid"}, "images.invalid", False),
        ({"http_store_disallowed_hosts": "10.0.0.0/8"}, "10.1", False),
        ({"http_store_allowed_hosts": "10.0.0.0/8"}, "10.0.0.1", True),
        # Only the proxy knows the address.
        ({"http_store_allowed_hosts": "10.0.0.0/8"}, "images.invalid", False),
        ({"http_store_disallowed_hosts": "10.0.0.0/8"}, "images.invalid", True),
        ({"http_store_disallowed_ports": "80"}, "images.invalid", False),
    ],
)
def test_through_a_proxy_the_url_is_checked(http_store, options, host, fine):
    with RawServer(ANSWER) as proxy:
        # The proxy itself is the operator's.
        http = http_store(http_proxy_information={"http": f"127.0.0.1:{proxy.port}"}, **options)
        if fine:
            assert http.read(f"http://{host}/image") == b"image"
        else:
            with pytest.raises(exceptions.BadStoreUri, match="operator"):
                http.get(f"http://{host}/image")
        assert proxy.accepted == int(fine)


@pytest.mark.parametrize(
    ("proxies", "disallowed", "told"),
    [
        ({"http": "127.0.0.1:1"}, "10.0.0.0/8", True),
        ({"http": "127.0.0.1:1"}, "*.example.org", False),
        ({}, "10.0.0.0/8", False),
    ],
)
def test_the_operator_is_told_what_a_proxy_hides(http_store, caplog, proxies, disallowed, told):
    caplog.set_level(logging.WARNING)
    http_store(http_proxy_information=proxies, http_store_disallowed_hosts=disallowed)
    assert ("resolves names itself" in caplog.text) is told


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
def test_the_operator_is_told_what_a_proxy_of_the_environment_hides(
    http_store, caplog, monkeypatch, name
):
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("no_proxy", "localhost")
    http_store(http_store_disallowed_hosts=["10.0.0.0/8"])
    assert "resolves names itself" not in caplog.text
    monkeypatch.setenv(name, "http://192.0.2.1:3128")
    http_store(http_store_disallowed_hosts=["10.0.0.0/8"])
    assert "resolves names itself" in caplog.text


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("http_store_allowed_hosts", "http://example.org"),
        ("http_store_allowed_hosts", "example.org:80"),
        ("http_store_disallowed_hosts", "10.0.0.0/33"),
        ("http_store_disallowed_hosts", "10.0.0.300"),
        ("http_store_disallowed_hosts", "*"),
        ("http_store_disallowed_hosts", "*example.org"),
        ("http_store_disallowed_hosts", "a.*.org"),
        ("http_store_disallowed_hosts", "b\u00fccher.example"),
        ("http_store_allowed_ports", "http"),
        ("http_store_disallowed_ports", "0"),
        ("http_store_disallowed_ports", "65536"),
    ],
)
def test_an_entry_that_means_nothing_is_refused(http_store, option, value):
    with pytest.raises(ValueError, match=r"."):
        http_store(**{option: value})
