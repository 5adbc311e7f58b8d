# SPDX-License-Identifier: Apache-2.0
"""What the options say about the service."""

from __future__ import annotations

import pytest

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
