# SPDX-License-Identifier: Apache-2.0
"""What the options say about the service."""

from __future__ import annotations

import pytest

from glance_store import exceptions
from glance_store._drivers.s3.endpoint import (
    Endpoint,
    amazon_region,
    is_dns_name,
    location_constraint,
    parse,
)


@pytest.mark.parametrize(
    ("option", "region", "expected"),
    [
        ("example.org", "", Endpoint(False, "example.org", None, "http://example.org")),
        (
            "https://example.org:9000/",
            "",
            Endpoint(True, "example.org:9000", None, "https://example.org:9000"),
        ),
        (
            "HTTP://example.org/s3",
            "eu",
            Endpoint(False, "example.org/s3", "eu", "http://example.org/s3"),
        ),
        (
            "https://s3.eu-west-1.amazonaws.com:443",
            "",
            Endpoint(True, "s3.eu-west-1.amazonaws.com:443", "eu-west-1", None),
        ),
        (
            "https://s3.eu-west-1.amazonaws.com",
            "eu-west-2",
            Endpoint(
                True,
                "s3.eu-west-1.amazonaws.com",
                "eu-west-2",
                "https://s3.eu-west-1.amazonaws.com",
            ),
        ),
        (
            "http://key:secret@example.org",
            "",
            Endpoint(False, "example.org", None, "http://example.org"),
        ),
    ],
)
def test_address(option: str, region: str, expected: Endpoint) -> None:
    """Also r200, a port in the address, and r208, a region of its own."""
    assert parse(option, region) == expected


@pytest.mark.parametrize(
    "host",
    [
        "s3-fips.us-gov-west-1.amazonaws.com",
        "s3-fips-us-gov-west-1.amazonaws.com",
        "s3-fips.dualstack.us-gov-west-1.amazonaws.com",
        "s3.dualstack.us-gov-west-1.amazonaws.com",
        "s3.us-gov-west-1.amazonaws.com:8443",
        "s3.us-gov-west-1.amazonaws.com:80",
    ],
)
def test_r208_special_hosts_of_amazon_stay_what_they_are(host: str) -> None:
    """For the region alone the client library would take the plain host instead."""
    expected = Endpoint(True, host, "us-gov-west-1", f"https://{host}")
    assert parse(f"https://{host}", "") == expected


@pytest.mark.parametrize(
    ("option", "url"),
    [
        ("https://s3.eu-west-1.amazonaws.com:443", None),
        ("http://s3.eu-west-1.amazonaws.com:80", None),
        ("s3.eu-west-1.amazonaws.com:80", None),
        ("s3-eu-west-1.amazonaws.com", None),
        ("http://s3.eu-west-1.amazonaws.com:443", "http://s3.eu-west-1.amazonaws.com:443"),
    ],
)
def test_r208_the_usual_port_is_no_special_one(option: str, url: str | None) -> None:
    found = parse(option, "")
    assert (found.region, found.url) == ("eu-west-1", url)


def test_a_path_behind_a_host_of_amazon_is_kept() -> None:
    option = "https://s3.eu-west-1.amazonaws.com:443/path"
    assert parse(option, "") == Endpoint(True, option.partition("//")[2], None, option)


@pytest.mark.parametrize("option", ["ftp://x", "htps://x", "s3://x", "://x", "https//x://y"])
def test_schemes_that_would_mean_clear_text(option: str) -> None:
    with pytest.raises(exceptions.BadStoreConfiguration, match="s3_store_host"):
        parse(option, "")


def test_what_is_wrong_with_the_scheme_has_no_secret() -> None:
    with pytest.raises(exceptions.BadStoreConfiguration) as caught:
        parse("key:canary@example.org/x://y", "eu")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("s3.amazonaws.com", "us-east-1"),
        ("s3.us-west-2.amazonaws.com", "us-west-2"),
        ("s3-ap-southeast-1.amazonaws.com", "ap-southeast-1"),
        ("s3.dualstack.eu-central-1.amazonaws.com", "eu-central-1"),
        ("s3.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("S3.EU-WEST-1.AMAZONAWS.COM:443", "eu-west-1"),
        ("s3.eu-west-1.amazonaws.com.example.org", None),
        ("example.org", None),
    ],
)
def test_r200_region_of_a_host_of_amazon(host: str, region: str | None) -> None:
    assert amazon_region(host) == region


def test_place_of_a_new_bucket() -> None:
    assert location_constraint("eu-west-1") == "eu-west-1"
    for nothing in (None, "", "us-east-1"):
        assert location_constraint(nothing) is None


@pytest.mark.parametrize("name", ["images", "a-1", "0" * 63])
def test_names_that_can_stand_before_a_host(name: str) -> None:
    assert is_dns_name(name)


@pytest.mark.parametrize("name", ["Images", "a_b", "ab", "-ab", "a" * 64, "with.dot"])
def test_r210_names_that_cannot(name: str) -> None:
    assert not is_dns_name(name)
