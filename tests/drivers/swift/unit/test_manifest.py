# SPDX-License-Identifier: Apache-2.0
"""What a cluster says of itself, and what is taken for granted when it does not."""

from __future__ import annotations

import json
import types
from typing import Any

import pytest

from glance_store import exceptions
from glance_store._drivers.swift import manifest

GIB = 1024**3


def answer(status: int = 200, **sections: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(status=status, data=json.dumps(sections).encode())


class Client:
    """Gets the answers that it is given, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.account = types.SimpleNamespace(url="http://swift:8080/v1/AUTH_x")
        self.answers = list(answers)

    def info(self) -> Any:
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(manifest, "_CLUSTERS", {})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, manifest.USUAL),
        ({"swift": {}}, manifest.USUAL),
        ({"swift": {"container_listing_limit": 7}}, manifest.Cluster(None, 7, 5 * GIB)),
        ({"swift": {"max_file_size": 8}}, manifest.Cluster(None, 10_000, 8)),
        ({"swift": {"max_file_size": "many"}, "slo": []}, manifest.USUAL),
        ({"swift": None}, manifest.USUAL),
        (
            {"swift": {"container_listing_limit": 7, "max_file_size": 8}, "slo": {}},
            manifest.Cluster(manifest.Limits(1000, 2 * 1024**2, 1), 7, 8),
        ),
    ],
)
def test_what_it_says(given, expected):
    client = Client(answer(**given))
    assert manifest.cluster(client) == expected
    # It is asked once.
    assert manifest.cluster(client) == expected
    assert manifest.limits(client) == expected.static


@pytest.mark.parametrize("status", [401, 403, 404])
def test_it_may_say_nothing(status):
    client = Client(answer(status))
    assert manifest.cluster(client) == manifest.cluster(client) == manifest.USUAL


@pytest.mark.parametrize("failure", [answer(503), exceptions.RemoteServiceUnavailable()])
def test_it_is_asked_again_when_it_could_not_answer(failure):
    client = Client(failure, answer(slo={}), failure)
    assert manifest.cluster(client) == manifest.USUAL
    known = manifest.cluster(client)
    assert known.static is not None
    # What it has said an hour ago is better than nothing.
    manifest._CLUSTERS["swift:8080"] = (-1e9, known)
    assert manifest.cluster(client) == known
    assert client.answers == []
