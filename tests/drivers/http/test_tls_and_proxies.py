# SPDX-License-Identifier: Apache-2.0
"""Certificates of https servers, and proxies on the way to a server."""

from __future__ import annotations

import base64
import importlib.util
import logging
import ssl
import warnings

import pytest
import requests
import trustme

from glance_store import exceptions
from tests.services.http_server import Proxy, WebServer, deaf_port

from .raw_server import RawServer, head

IMAGE = bytes(range(256)) * 40


def test_r69_a_certificate_of_an_unknown_authority_is_refused(tls_web, http):
    uri = tls_web.serve("/image", IMAGE)
    with pytest.raises(exceptions.RemoteServiceUnavailable) as caught:
        http.get(uri)
    assert "https_ca_certificates_file" in str(caught.value)
    assert "certificate" in str(caught.value).lower()
    with pytest.raises(exceptions.BadStoreUri, match="https_ca_certificates_file"):
        http.size(uri)
    assert tls_web.requests == []


def test_r69_a_certificate_for_another_name_is_refused(authority, authority_file, http_store):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("images.example.org").configure_cert(context)
    http = http_store(https_ca_certificates_file=authority_file)
    with WebServer(context) as server:
        uri = server.serve("/image", IMAGE)
        with pytest.raises(exceptions.RemoteServiceUnavailable, match=r"127\.0\.0\.1"):
            http.get(uri)


@pytest.mark.parametrize("insecure", [True, False])
def test_r70_the_file_of_authorities_decides(tls_web, http_store, authority_file, insecure):
    http = http_store(https_ca_certificates_file=authority_file, https_insecure=insecure)
    uri = tls_web.serve("/image", IMAGE)
    assert http.read(uri) == IMAGE
    assert http.read(uri, 5, 10) == IMAGE[5:15]
    assert http.size(uri) == len(IMAGE)


def test_r70_another_authority_is_refused_even_if_insecure(tls_web, http_store, tmp_path):
    path = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    http = http_store(https_ca_certificates_file=str(path), https_insecure=True)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="TLS failed"):
        http.get(tls_web.serve("/image", IMAGE))


def test_the_environment_names_the_default_authorities(tls_web, http, authority_file, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority_file)
    assert http.read(tls_web.serve("/image", IMAGE)) == IMAGE


def test_the_environment_does_not_overrule_the_option(
    tls_web, http_store, authority_file, monkeypatch, tmp_path
):
    path = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    http = http_store(https_ca_certificates_file=authority_file)
    assert http.read(tls_web.serve("/image", IMAGE)) == IMAGE


def test_r77_the_default_accepts_any_certificate_and_the_operator_is_told_once(
    tls_web, create_single, caplog
):
    import glance_store

    # With the defaults, which old configurations rely on.
    filters = list(warnings.filters)
    caplog.set_level(logging.WARNING)
    create_single(["http"])
    uri = tls_web.serve("/image", IMAGE)
    for _time in range(2):
        chunks, _size = glance_store.get_from_backend(uri)
        assert b"".join(chunks) == IMAGE
    told = [record for record in caplog.records if "https_insecure" in record.getMessage()]
    assert len(told) == 1
    assert told[0].levelno == logging.WARNING
    # 17: no warning of urllib3 (it would be an error here), and the filters are as they were.
    assert warnings.filters == filters


def test_r77_nothing_is_said_when_servers_are_verified(http, caplog):
    assert "https_insecure" not in caplog.text


def test_a_missing_file_of_authorities_is_told(tls_web, http_store, caplog, tmp_path):
    missing = str(tmp_path / "missing.pem")
    http = http_store(https_ca_certificates_file=missing)
    assert f"https_ca_certificates_file {missing} cannot be loaded" in caplog.text
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="TLS CA certificate bundle"):
        http.get(tls_web.serve("/image", IMAGE))


def test_a_damaged_file_of_authorities_is_told(tls_web, http_store, caplog, tmp_path):
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("no certificate")
    http = http_store(https_ca_certificates_file=str(damaged))
    assert f"https_ca_certificates_file {damaged} cannot be loaded" in caplog.text
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="TLS failed"):
        http.get(tls_web.serve("/image", IMAGE))


def test_what_is_wrong_with_a_certificate_is_told(tls_web, http_store, authority_file):
    uri = tls_web.serve("/image", IMAGE)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="https_ca_certificates_file"):
        http_store().get(uri)
    # The authority is known: it is another's certificate.
    http = http_store(https_ca_certificates_file=authority_file)
    with pytest.raises(
        exceptions.RemoteServiceUnavailable, match=r"TLS failed: .*localhost"
    ) as caught:
        http.get(uri.replace("127.0.0.1", "localhost"))
    assert "authority" not in str(caught.value)


def test_a_directory_of_authorities_is_looked_into(tls_web, http_store, caplog, tmp_path):
    http = http_store(https_ca_certificates_file=str(tmp_path))
    assert caplog.text == ""
    # It is empty: no authority is trusted.
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="TLS failed"):
        http.get(tls_web.serve("/image", IMAGE))


def test_a_server_without_tls_is_an_error(web, http):
    uri = web.serve("/image", IMAGE).replace("http:", "https:")
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="TLS failed"):
        http.get(uri)


@pytest.mark.parametrize("scheme", ["http", "HTTP", "all"])
def test_r70_a_proxy_for_http(web, proxy, http_store, scheme):
    address = f"127.0.0.1:{proxy.port}"
    http = http_store(http_proxy_information={scheme: address})
    uri = web.serve("/image", IMAGE)
    assert http.read(uri + "?token=x", 5, 10) == IMAGE[5:15]
    assert http.size(uri) == len(IMAGE)
    assert [request.target for request in proxy.requests] == [uri + "?token=x", uri]
    assert web.requests[0].target == "/image?token=x"


@pytest.mark.parametrize("insecure", [True, False])
def test_r70_a_proxy_for_https(tls_web, proxy, http_store, authority_file, insecure):
    verified = {"https_ca_certificates_file": authority_file}
    http = http_store(
        http_proxy_information={"https": f"http://127.0.0.1:{proxy.port}"},
        https_insecure=insecure,
        **({} if insecure else verified),
    )
    assert http.read(tls_web.serve("/image", IMAGE)) == IMAGE
    assert [(request.method, request.target) for request in proxy.requests] == [
        ("CONNECT", f"127.0.0.1:{tls_web.port}")
    ]


def test_credentials_of_a_proxy_are_for_the_proxy_alone(web, proxy, http_store):
    address = f"http://who:secret@127.0.0.1:{proxy.port}"
    http = http_store(http_proxy_information={"http": address})
    assert http.read(web.serve("/image", IMAGE)) == IMAGE
    basic = "Basic " + base64.b64encode(b"who:secret").decode()
    assert proxy.seen("Proxy-Authorization") == [basic]
    assert web.seen("Proxy-Authorization") == [None]


def test_a_scheme_without_proxy_is_reached_directly(web, proxy, http_store):
    http = http_store(http_proxy_information={"https": f"127.0.0.1:{proxy.port}"})
    assert http.read(web.serve("/image", IMAGE)) == IMAGE
    assert proxy.requests == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"http_proxy_information": {"htp": "u:S3CRET@127.0.0.1:1"}}, "'htp', which is not http"),
        ({"http_proxy_information": {"http": "//u:S3CRET@[::1"}}, "http_proxy_information is not"),
        (
            {"https_ca_certificates_file": "/none.pem"},
            "https_ca_certificates_file /none.pem cannot be loaded",
        ),
    ],
)
def test_options_that_keep_images_from_being_read_are_told(http_store, caplog, options, words):
    http = http_store(**options)
    assert words in caplog.text
    with pytest.raises(exceptions.BadStoreConfiguration) as caught:
        http.store.check_health()
    assert words in str(caught.value)
    assert "S3CRET" not in caplog.text + str(caught.value)


def test_a_proxy_of_the_environment_is_used(web, proxy, http, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    assert http.read(web.serve("/image", IMAGE)) == IMAGE
    assert len(proxy.requests) == 1
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert http.read(web.url("/image")) == IMAGE
    assert len(proxy.requests) == 1


def test_the_option_comes_before_the_environment(web, proxy, http_store, monkeypatch):
    with Proxy() as other:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{other.port}")
        http = http_store(http_proxy_information={"http": f"127.0.0.1:{proxy.port}"})
        assert http.read(web.serve("/image", IMAGE)) == IMAGE
        assert (len(proxy.requests), other.requests) == (1, [])


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there(http_store, scheme):
    with deaf_port() as port:
        http = http_store(http_proxy_information={scheme: f"who:S3CRET@127.0.0.1:{port}"})
        with pytest.raises(exceptions.RemoteServiceUnavailable) as caught:
            http.get(f"{scheme}://127.0.0.1:1/image")
    assert "http_proxy_information" in str(caught.value)
    assert "refused" in str(caught.value)
    assert "S3CRET" not in str(caught.value)


def test_a_proxy_that_wants_credentials(http_store):
    with RawServer(head("407 Proxy Authentication Required", "Content-Length: 0")) as server:
        http = http_store(http_proxy_information={"http": f"127.0.0.1:{server.port}"})
        for call in (http.get, http.size):
            with pytest.raises(exceptions.BadStoreUri, match="http_proxy_information must have"):
                call("http://127.0.0.1:1/image")


def test_socks_without_its_package(http_store, caplog, monkeypatch):
    def missing(*_arguments, **_options):
        raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")

    monkeypatch.setattr(requests.adapters, "SOCKSProxyManager", missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    http = http_store(http_proxy_information={"http": "socks5://127.0.0.1:1"})
    assert "needs the Python package PySocks" in caplog.text
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="PySocks"):
        http.get("http://127.0.0.1:1/image")


@pytest.mark.parametrize("address", ["http://", "gopher://127.0.0.1:1", "http://[::1"])
def test_a_proxy_that_cannot_be_used(http_store, address, caplog):
    http = http_store(http_proxy_information={"http": address})
    assert "http_proxy_information is not a valid address" in caplog.text
    with pytest.raises(exceptions.RemoteServiceUnavailable) as caught:
        http.get("http://127.0.0.1:1/image")
    assert "http_proxy_information" in str(caught.value)
