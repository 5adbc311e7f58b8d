# SPDX-License-Identifier: Apache-2.0
"""Locations of the http store beyond the vectors: what is refused, and what is never shown."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glance_store import exceptions
from glance_store._drivers.http import StoreLocation


def parse(uri):
    location = StoreLocation({}, None)
    location.parse_uri(uri)
    return location


@pytest.mark.parametrize(
    "uri",
    [
        "http://h",
        "http://h?q=1",
        "http://h/p?q=a;b",
        "http://h//a//b/",
        "http://h/a@b:c",
        "http://h/a?user@host:1/x",
        "http://h/../a/./b",
        "http://h/%2e%2E/%00",
        "http://h/a b",
        "http://h:/p",
        "http://u:@h/p",
        "http://:p@h/p",
        "https://u%3A:p%40%2F@[1::2]:8443/p;v=1?q",
        "http://[fe80::1%25eth0]:80/p",
        "http://h\u00e9/\u00e9?\u00e9",
    ],
)
def test_the_uri_is_kept(uri):
    assert parse(uri).get_uri() == uri


@pytest.mark.parametrize(
    ("uri", "kept"),
    [("http://h/p#f", "http://h/p"), ("http://h/p?", "http://h/p"), ("http://@h/p", "http://h/p")],
)
def test_what_means_nothing_is_dropped(uri, kept):
    assert parse(uri).get_uri() == kept


@pytest.mark.parametrize(
    ("uri", "params"),
    [
        ("http://h/p;a", "a"),
        ("http://h/p;a;b?q", "a;b"),
        ("http://h/p;a/q", ""),
        ("http://h/p;a/q;b?c;d", "b"),
    ],
)
def test_r85_params_are_kept(uri, params):
    location = parse(uri)
    assert (location.params, location.get_uri(), location.url) == (params, uri, uri)


@pytest.mark.parametrize(
    "host", ["h:x", "h:-1", "h:99999", "[1::2]:x", "[::1", "::1]", "[zz]", ":80", "h:8 0"]
)
@pytest.mark.parametrize("credentials", ["", "u:S3CRET@"])
def test_r72_a_wrong_host_or_port_is_refused(host, credentials):
    with pytest.raises(exceptions.BadStoreUri) as caught:
        parse(f"http://{credentials}{host}/p")
    assert "S3CRET" not in str(caught.value)


def test_r76_credentials():
    location = parse("https://u:S3CR%40ET@h:8443/p?token=S3CRET")
    assert (location.user, location.password, location.netloc) == ("u", "S3CR%40ET", "h:8443")
    assert location.url == "https://h:8443/p?token=S3CRET"
    assert location.shown == "https://h:8443/p?***"
    assert "S3CR" not in repr(location)


@pytest.mark.parametrize(
    "uri",
    [
        None,
        7,
        b"http://h/p",
        "",
        "http",
        "http:/h/p",
        "//h/p",
        "http:///p",
        "HTTP:/h/p",
        "ftp://h/p",
        "u:S3CRET@h/p",
        "http://u:S3CRET@/p",
        "http://u:S3CRET@x@h/p",
        "http://S3CRET@h/p",
        "http://u:S3:CRET@h/p",
        "http://u:S3CRET@[h/p",
        "http://u:S3CRET\u2100@h/p",
        "http://u:S3CRET@h\n/p",
        "http://u:S3CRET@h/p\r\nX: y",
        "http://u:S3CRET@h/p\x00",
        "http://u:S3CRET@h/\ud800",
        "http://u:S3CRET@a b/p",
        # Some clients take the backslash for the slash that ends the host.
        "http://u:S3CRET@a\\b/p",
        "http://a\\@u:S3CRET@b/p",
        "http://a\\@b/p",
        "http://[::1]x/p",
        "http://[v1.a]/p",
        "http://[::1]]/p",
        "http://x[::1]/p",
    ],
)
def test_hostile_uris_are_refused_without_showing_secrets(uri):
    location = parse("http://u:p@h/p;a?q")
    before = dict(vars(location))
    with pytest.raises(exceptions.BadStoreUri) as caught:
        location.parse_uri(uri)
    report = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "S3CRET" not in report
    assert caught.value.__context__ is None
    assert str(caught.value).isprintable()
    assert vars(location) == before


@pytest.mark.parametrize(
    ("specs", "uri"),
    [
        ({"netloc": "h", "path": "/p"}, "http://h/p"),
        (
            {"scheme": "https", "netloc": "h:1", "user": "u", "password": "p", "path": "/p"},
            "https://u:p@h:1/p",
        ),
        (
            {"scheme": "http", "netloc": "h", "path": "/p", "params": "v", "query": "a=b"},
            "http://h/p;v?a=b",
        ),
    ],
)
def test_r84_a_location_made_of_specs(specs, uri):
    location = StoreLocation(specs, None)
    assert location.get_uri() == uri
    assert parse(uri).get_uri() == uri
    assert {name: getattr(location, name) for name in specs} == specs


@pytest.mark.parametrize(
    ("uri", "origin"),
    [
        ("http://h/p", ("http", "h", 80)),
        ("https://u:p@H:8443/p", ("https", "h", 8443)),
        ("https://[::1]/p", ("https", "::1", 443)),
    ],
)
def test_whom_credentials_are_for(uri, origin):
    assert parse(uri).origin == origin


TEXT = st.text(alphabet="ab:@/?#[];%2e.&=\\ \n\x00\u00e9", max_size=24) | st.text(max_size=24)


@settings(max_examples=300, deadline=None)
@given(
    scheme=st.sampled_from(["http", "https"]),
    head=st.sampled_from(["", "h/", "u:p@h/", "[::1]:80/"]),
    text=TEXT,
)
def test_any_text_is_refused_or_understood_for_good(scheme, head, text):
    try:
        location = parse(f"{scheme}://{head}{text}")
    except exceptions.BadStoreUri:
        return
    uri = location.get_uri()
    again = parse(uri)
    assert again.get_uri() == uri
    assert again.origin == location.origin
    assert "@" not in again.netloc


@pytest.mark.parametrize(
    ("rest", "target"),
    [
        ("h/a%7Eb?sig=%2b%7e", "/a%7Eb?sig=%2b%7e"),
        ("u:p@h:80/../a/./b;v?", "/../a/./b;v?"),
        ("[::1]//a;?#f?g", "//a;?"),
        ("h", "/"),
        ("h?q", "/?q"),
        ("h#f", "/"),
        ("h/\u00e9 b", "/%C3%A9%20b"),
        ("h/100%zz", "/100%zz"),
    ],
)
def test_the_target_of_the_request(rest, target):
    assert parse(f"http://{rest}").target == target
    assert parse(f"https://{rest}").target == target


def test_the_target_of_a_location_made_of_specs():
    specs = {"netloc": "h", "path": "/a%7E/..", "params": "v", "query": "a=%2b"}
    assert StoreLocation(specs, None).target == "/a%7E/..;v?a=%2b"
