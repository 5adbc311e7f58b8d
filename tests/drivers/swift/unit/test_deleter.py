# SPDX-License-Identifier: Apache-2.0
"""Deletions on clusters that do what no real one can be made to do."""

from __future__ import annotations

import json
import types
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers.swift import containers, deleter
from glance_store.transfer.retry import Patience
from tests.drivers.swift.loopback import Answer, LittleSwift, Seen, Stored, client_of

if TYPE_CHECKING:
    from tests.drivers.swift.loopback import Act


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'  \r\n{"Response Status": "200 OK", "Errors": []}', ("200 OK", [])),
        (
            b'{"Response Status": "400 Bad Request", "Errors": [["/c/x", "404 Not Found"]]}',
            ("200 OK", []),
        ),
        (b'{"Response Status": "404 Not Found", "Errors": []}', ("200 OK", [])),
        (
            b'{"Response Status": "400 Bad Request", "Errors": [["/c/x", "503 x"]]}',
            ("400 Bad Request", [["/c/x", "503 x"]]),
        ),
        (b"<html>", ("unreadable response", [])),
        (b"", ("unreadable response", [])),
        (b"[1]", ("unreadable response", [])),
        (
            b'{"Response Status": "200 OK", "Errors": [[]]}',
            ("unreadable response", []),
        ),
    ],
)
def test_outcome_of_a_deletion_by_the_cluster(text, expected):
    assert deleter.outcome(text) == expected


# -- static large objects: the cluster removes them by itself


class Plan:
    """What the cluster answers to the requests to remove an image, one after the other.

    :param answers: a status, and what could not be removed; after the last one it removes the image
    :param stubborn: objects that cannot be removed at all
    """

    def __init__(
        self, answers: list[tuple[int, list[list[str]]]], stubborn: tuple[str, ...]
    ) -> None:
        self.answers = [*answers]
        self.stubborn = stubborn
        self.removed: list[str] = []

    def __call__(self, seen: Seen, act: Act) -> Answer:
        if seen.method != "DELETE":
            return act()
        if not seen.query:
            self.removed.append(seen.name)
            return Answer(409) if seen.name in self.stubborn else act()
        if not self.answers:
            return act()
        status, failed = self.answers.pop(0)
        said = {"Response Status": "400 Bad Request" if failed else "200 OK", "Errors": failed}
        return Answer(status, json.dumps(said).encode())


def put_static(server: LittleSwift, count: int) -> None:
    entries = []
    for number in range(count):
        server.objects[f"images/s{number}"] = Stored(b"data", {})
        entries.append({"path": f"/images/s{number}", "hash": "0" * 32})
    server.objects["images/image"] = Stored(b"", {}, entries)


FAILED = (200, [["/images/s%30", "503 x"], ["/images/s1", "409 x"]])


@pytest.mark.parametrize(
    ("answers", "removed"),
    [
        ([], []),
        ([(409, [])], []),
        # What it could not remove at first is removed here, in case that it cannot see it any more.
        ([FAILED], ["images/s0", "images/s1"]),
        ([FAILED] * 2, ["images/s0", "images/s1"]),
    ],
)
def test_what_a_cluster_leaves_is_removed(server, answers, removed):
    put_static(server, 3)
    server.rule = plan = Plan(answers, ())
    deleter.remove(client_of(server.url), "images", "image")
    assert sorted(plan.removed) == removed
    assert plan.answers == []
    assert server.names() == []


def test_what_a_cluster_leaves_for_good_is_named(server):
    """The manifest is gone with the first try: the second one knows of nothing."""
    put_static(server, 2)
    plan = Plan([FAILED], stubborn=("images/s1",))

    def rule(seen: Seen, act: Act) -> Answer:
        answer = plan(seen, act)
        if seen.query.get("multipart-manifest") == "delete":
            server.objects.pop("images/image", None)
            server.objects.setdefault("images/s1", Stored(b"data", {}))
        return answer

    server.rule = rule
    with pytest.raises(
        exceptions.BackendException, match=r"1 objects in the container images, s1\*"
    ):
        deleter.remove(client_of(server.url, patience=0.5), "images", "image")
    assert server.names() == ["images/s1"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((409, []), exceptions.BackendException),
        ((200, [["/images/image", "409 x"]]), exceptions.BackendException),
        ((200, [["/images/s1", "403 x"]]), exceptions.Forbidden),
        ((403, []), exceptions.Forbidden),
    ],
)
def test_image_that_a_cluster_does_not_remove(server, answer, error):
    put_static(server, 2)
    server.rule = Plan([answer] * 100, stubborn=("images/image",))
    with pytest.raises(error):
        deleter.remove(client_of(server.url, patience=0.5), "images", "image")
    assert "images/image" in server.names()


def test_answer_to_a_deletion_by_the_cluster_is_lost(server):
    """The next try finds nothing any more: that is what was wanted."""
    put_static(server, 2)
    lost: list[bool] = []

    def rule(seen: Seen, act: Act) -> Answer:
        answer = act()
        if seen.method == "DELETE" and not lost:
            lost.append(True)
            return Answer(0)
        return answer

    server.rule = rule
    deleter.remove(client_of(server.url), "images", "image")
    assert lost
    assert server.names() == []


# -- dynamic large objects: their segments are found by a listing


def put_dynamic(server: LittleSwift, count: int) -> None:
    for number in range(count):
        server.objects[f"images/image-{number}"] = Stored(b"data", {})
    server.objects["images/image"] = Stored(b"", {"x-object-manifest": "images/image-"})


def test_listing_that_lags_behind(server):
    """The size that Swift counts says that something is missing: it is looked for again."""
    put_dynamic(server, 4)
    late = {"images/image-1", "images/image-3"}
    listings: list[int] = []

    def rule(seen: Seen, act: Act) -> Answer:
        listing = seen.method == "GET" and not seen.query.get("marker")
        if listing:
            listings.append(1)
        server.hidden = late if listing and len(listings) < 3 else set()
        answer = act()
        server.hidden = set()
        return answer

    server.rule = rule
    deleter.remove(client_of(server.url), "images", "image")
    assert len(listings) == 3
    assert server.names() == []


@pytest.mark.parametrize(
    "manifest",
    ["f%C3%BCr%20alle/image-", "für alle/image-".encode().decode("latin-1")],
    ids=["quoted", "as-it-is"],
)
def test_segments_in_a_container_with_odd_characters(server, manifest):
    """Older releases put the name into the header as it is; headers are bytes."""
    server.containers.add("für alle")
    server.objects["für alle/image-00001"] = Stored(b"data", {})
    server.objects["images/image"] = Stored(b"", {"x-object-manifest": manifest})
    deleter.remove(client_of(server.url), "images", "image")
    assert server.names() == []


def test_manifest_that_names_no_segments(server, caplog):
    """All that begins with nothing is the whole container."""
    server.objects["images/other"] = Stored(b"data", {})
    server.objects["images/image"] = Stored(b"", {"x-object-manifest": "images/"})
    deleter.remove(client_of(server.url), "images", "image")
    assert "names no segments" in caplog.text
    assert server.names() == ["images/other"]


def test_segment_that_stays_keeps_the_manifest(server):
    put_dynamic(server, 3)
    server.rule = Plan([], stubborn=("images/image-1",))
    with pytest.raises(exceptions.BackendException, match="image-1"):
        deleter.remove(client_of(server.url, patience=0.3), "images", "image")
    assert server.names() == ["images/image", "images/image-1"]


class Answers:
    """Stands for a client that gets one answer to all requests."""

    def __init__(self, content: bytes) -> None:
        self._answer = types.SimpleNamespace(status_code=200, headers={}, content=content)

    def request(self, *_place: Any, **_given: Any) -> Any:
        return self._answer


@pytest.mark.parametrize("text", [b"{}", b"nonsense", b'[{"name": "x"}]', b'["x"]'])
def test_listing_that_is_not_understood(text):
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="not a listing"):
        list(containers.entries(Answers(text), "c", "", Patience(0)))
