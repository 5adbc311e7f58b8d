# SPDX-License-Identifier: Apache-2.0
"""Lists of hosts: what their entries mean, and which names and addresses are in them."""

from __future__ import annotations

import pytest

from glance_store._drivers.http.targets import Hosts, parse_host


@pytest.mark.parametrize(
    ("entry", "meaning"),
    [
        ("Images.Example.org.", "images.example.org"),
        ("*.Example.org", "*.example.org"),
        (" localhost ", "localhost"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a_b.example", "a_b.example"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("[::1]", "::1/128"),
    ],
)
def test_entries(entry, meaning):
    assert str(parse_host(entry)) == meaning


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.", "a b", "a..b", "-a", "a-", "h:80", "http://h", "h/8", "1.2.3", "1.2.3.4/33",
     "1.2.3.256", "::g", "::/129", "*.1.2.3.4", "a,b", "caf\u00e9"],
)  # fmt: skip
def test_entries_that_mean_nothing(entry):
    with pytest.raises(ValueError, match="CIDR"):
        parse_host(entry)


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("64:ff9b::10.1.2.3", True),
        ("64:ff9b::11.1.2.3", False),
        ("fe80::1", True),
        ("fe80::1%eth0", True),
        ("fec0::1", False),
        ("0.0.0.0", True),
        ("::", True),
        ("::ffff:0.0.0.0", True),
        ("127.0.0.2", False),
    ],
)
def test_addresses(address, inside):
    assert Hosts.of(["10.0.0.0/8", "fe80::/10", "127.0.0.1"]).has_address(address) is inside


def test_names():
    hosts = Hosts.of(["h.example", "*.d.example"])
    for name in ("h.example", "H.Example.", "a.d.example", "a.b.d.example"):
        assert hosts.has_name(name)
    for name in ("example", "a.h.example", "d.example", "xd.example", "d.example.org"):
        assert not hosts.has_name(name)
    assert hosts
    assert not Hosts.of([])
    assert not Hosts.of(["10.0.0.0/8"]).has_name("10.0.0.1")
