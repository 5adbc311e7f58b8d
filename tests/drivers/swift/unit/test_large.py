# SPDX-License-Identifier: Apache-2.0
"""What a cluster says of itself, and what is taken for granted when it does not."""

from __future__ import annotations

import hashlib
import json
import types
from typing import Any

import pytest

from glance_store import exceptions
from glance_store._drivers.swift import errors, large
from glance_store.transfer.retry import Patience

GIB = 1024**3
MIB = 1024**2
URL = "http://swift:8080/v1/AUTH_x"
NONE = Patience(0)


def answer(status: int = 200, **sections: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(status_code=status, content=json.dumps(sections).encode())


class Client:
    """Gets the answers that it is given, one after the other."""

    def __init__(self, *answers: Any, url: str = URL) -> None:
        self.account = types.SimpleNamespace(url=url)
        self.answers = list(answers)

    def info(self, _patience: Any) -> Any:
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(large, "_CLUSTERS", {})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, large.USUAL),
        ({"swift": {}}, large.USUAL),
        ({"swift": {"container_listing_limit": 7}}, large.ClusterInfo(None, 7, 5 * GIB)),
        ({"swift": {"max_file_size": 8}}, large.ClusterInfo(None, 10_000, 8)),
        ({"swift": {"max_file_size": "many"}, "slo": []}, large.USUAL),
        ({"swift": {"container_listing_limit": 0, "max_file_size": -1}}, large.USUAL),
        ({"swift": None}, large.USUAL),
        (
            {"swift": {"container_listing_limit": 7, "max_file_size": 8}, "slo": {}},
            large.ClusterInfo(large.Static(1000, 2 * 1024**2, 1), 7, 8),
        ),
    ],
)
def test_what_it_says(given, expected):
    client = Client(answer(**given))
    assert large.cluster_info(client, NONE) == expected
    # It is asked once.
    assert large.cluster_info(client, NONE) == expected


@pytest.mark.parametrize("status", [401, 403, 404])
def test_it_may_say_nothing(status):
    client = Client(answer(status))
    assert large.cluster_info(client, NONE) == large.cluster_info(client, NONE) == large.USUAL


@pytest.mark.parametrize(
    "failure", [answer(503), exceptions.RemoteServiceUnavailable(), errors.SwiftError()]
)
def test_it_is_asked_again_when_it_could_not_answer(monkeypatch, failure):
    client = Client(failure, answer(slo={}), failure)
    # Not in the same minute.
    assert large.cluster_info(client, NONE) == large.cluster_info(client, NONE) == large.USUAL
    monkeypatch.setattr(large, "_PAUSE", 0)
    large._CLUSTERS.clear()
    client.answers.insert(0, failure)
    assert large.cluster_info(client, NONE) == large.USUAL
    known = large.cluster_info(client, NONE)
    assert known.static is not None
    # What it has said an hour ago is better than nothing.
    large._CLUSTERS[URL] = (-1e9, known)
    assert large.cluster_info(client, NONE) == known
    assert client.answers == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"{}", None),
        (b"nonsense", None),
        (b'{"swift": {}, "slo": null}', None),
        (b'{"swift": {}, "slo": {"max_manifest_segments": 7}}', large.Static(7, 2 * MIB, 1)),
        (
            b'{"slo": {"max_manifest_segments": 7, "max_manifest_size": 8, "min_segment_size": 9}}',
            large.Static(7, 8, 9),
        ),
    ],
)
def test_static_objects_of_a_cluster(text, expected):
    assert large._parsed(text).static == expected


def test_clusters_behind_one_host_name_have_their_own_limits():
    """A proxy tells them by the path."""
    one = Client(answer(swift={"max_file_size": 1}), url="https://swift/one/v1/AUTH_x")
    other = Client(answer(swift={"max_file_size": 2}, slo={}), url="https://swift/two/v1/AUTH_x")
    for _time in range(2):
        assert large.cluster_info(one, NONE) == large.ClusterInfo(None, 10_000, 1)
        assert large.cluster_info(other, NONE).static is not None
        assert large.cluster_info(other, NONE).largest == 2
    assert one.answers == other.answers == []


# -- how many segments

LIMITS = large.Static(1000, 2 * MIB, 1)
MB = 1000 * 1024


@pytest.mark.parametrize(
    ("cluster", "segment", "expected"),
    [
        (large.USUAL, MB, 9_999),
        (large.ClusterInfo(LIMITS, 10_000, GIB), MB, 9_999),
        (large.ClusterInfo(LIMITS, 500, GIB), MB, 1000),
        (large.ClusterInfo(LIMITS._replace(smallest_segment=MB + 1), 500, GIB), MB, 499),
        (large.ClusterInfo(LIMITS._replace(segments=20_000), 10_000, GIB), MB, 13_025),
    ],
)
def test_number_of_segments(cluster, segment, expected):
    """As many as one of both kinds of large objects takes, also by the size of the manifest."""
    names = large.Names("c" * 10, "i" * 36, "0" * 16)
    assert cluster.limits(names, segment) == large.Limits(expected, cluster.largest)


def test_entries_of_a_manifest_are_not_longer_than_expected():
    names = large.Names("con\u00fctainer", 'a "name" with \u00e4', "0" * 16)
    segments = [large.Segment(names.of(number), "f" * 32, 5 * GIB) for number in range(1, 5)]
    body = large.ClusterInfo(LIMITS, 10_000, GIB).manifest(names, segments)
    assert body is not None
    assert len(body) <= 4 * names.entry_bytes + 2


def test_etag_of_a_static_object():
    """The MD5 of the MD5s of its segments, as Swift documents it."""
    segments = [large.Segment("a", "0" * 32, 1), large.Segment("b", "f" * 32, 2)]
    assert large.etag_of(segments) == hashlib.md5(b"0" * 32 + b"f" * 32).hexdigest()


# -- names


def test_segments_sort_in_order_and_belong_to_one_upload():
    one, other = large.Names("c", "image", "1" * 16), large.Names("c", "image", "2" * 16)
    numbers = [1, 2, 9, 10, 99999, 100000, 100001, 999999, 1000000]
    names = [one.of(number) for number in numbers]
    assert names == sorted(names)
    assert names[0] == f"image-{'1' * 16}-00001"
    assert not any(found.startswith(other.prefix) for found in names)


def test_names_of_segments_need_no_encoding():
    names = large.Names("c", "a%2Fb c/d?e\u00e4", "0" * 16)
    assert names.of(1) == f"a_2Fb_c_d_e_-{'0' * 16}-00001"
