# SPDX-License-Identifier: Apache-2.0
"""How an upload gets the name of its image, whatever becomes of its requests and their answers."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable

import pytest

from glance_store import exceptions
from glance_store._drivers._objects import claim
from glance_store._drivers._objects.claim import Claim, Expected, Feature, Found
from glance_store._drivers._objects.errors import DamagedInTransit, NameTaken
from glance_store.transfer.retry import Patience

SIZE = 10
ETAG = "right"
EXPECTED = Expected(SIZE, ETAG)


class Refused(exceptions.BackendException):
    """The service has not done it."""

    status = 400


class Taken(NameTaken):
    """Something is there."""

    status = 412


class Unanswered(exceptions.BackendUnavailable, exceptions.BackendException):
    """Nobody knows."""


class Service:
    """One name, and what is under it."""

    def __init__(self) -> None:
        self.there: Found | None = None
        self.log: list[str] = []
        # Called by the looks that come, one after the other.
        self.looks: list[Callable[[], None]] = []


class Upload(Claim):
    """An upload to that service."""

    def __init__(self, service: Service, seconds: float = 3.0) -> None:
        super().__init__("name", "image", Patience(seconds), Feature(True, "unknown"))
        self._service = service

    def find(self) -> Found | None:
        self._service.log.append("look")
        if self._service.looks:
            self._service.looks.pop(0)()
        return self._service.there

    def remove(self, found: Found) -> None:
        self._service.log.append("remove")
        self._service.there = None


class Sends:
    """Sends the request: one step for each try."""

    def __init__(self, upload: Upload, service: Service, *steps: str) -> None:
        self._upload = upload
        self._service = service
        self._steps = [*steps]

    def __call__(self) -> None:
        self._service.log.append("send")
        step = self._steps.pop(0)
        mine = Found(self._upload.mark, ETAG, SIZE)
        if step in ("stored", "answer-lost"):
            self._service.there = mine
        elif step in ("damaged", "damaged-answer-lost"):
            self._service.there = mine._replace(etag="wrong")
        elif step == "no-etag":
            self._service.there = mine._replace(etag="")
        elif step == "other":
            self._service.there = Found("other", ETAG, SIZE)
        if step == "taken" or step == "other":
            raise Taken("taken")
        if step == "refused":
            raise Refused("refused")
        if step in ("unanswered", "answer-lost", "damaged-answer-lost"):
            raise Unanswered("no answer")
        if step == "says-damaged":
            self._service.there = mine
            raise DamagedInTransit("damaged in transit")


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "wait", lambda _self, _seconds: None)


def run(service: Service, *steps: str, repeatable: bool = True) -> Upload:
    upload = Upload(service)
    upload.publish(Sends(upload, service, *steps), EXPECTED, repeatable=repeatable)
    return upload


@pytest.mark.parametrize(
    "steps",
    [
        ("stored",),
        ("answer-lost",),
        ("no-etag",),
        ("unanswered", "stored"),
        ("unanswered", "unanswered", "answer-lost"),
        # Whoever had it has failed: it is free again.
        ("taken", "stored"),
        ("damaged", "stored"),
        ("damaged-answer-lost", "stored"),
        ("says-damaged", "stored"),
    ],
)
def test_image_is_in_place(service: Service, steps: tuple[str, ...]) -> None:
    upload = run(service, *steps)
    assert service.there is not None
    assert service.there.mark == upload.mark
    assert service.there.etag in ("", ETAG)
    assert service.log.count("send") == len(steps)
    # What was damaged had to go first.
    assert service.log.count("remove") == sum("damaged" in step for step in steps)


def test_success_that_a_look_does_not_find_yet(service: Service) -> None:
    """Another server of the service may lag behind: the answer counts."""

    def hide() -> None:
        service.there = None

    service.looks = [hide]
    run(service, "stored")
    assert service.log == ["send", "look"]


def test_success_that_cannot_be_looked_at(service: Service) -> None:
    """The token has ended with the request."""

    def fail() -> None:
        raise Refused("the token is refused")

    service.looks = [fail]
    run(service, "stored")
    assert service.log == ["send", "look"]


def test_failure_that_cannot_be_looked_at(service: Service) -> None:
    """The error is the one of the request."""

    def fail() -> None:
        raise Refused("the token is refused")

    service.looks = [fail]
    with pytest.raises(Unanswered):
        run(service, "unanswered")


@pytest.mark.parametrize("step", ["other", "stored", "answer-lost", "unanswered"])
def test_name_of_somebody_else(service: Service, step: str) -> None:
    """Nothing of it is touched."""

    def overtake() -> None:
        service.there = Found("other", "x", 1)

    service.looks = [overtake]
    upload = Upload(service)
    with pytest.raises(exceptions.Duplicate):
        upload.publish(Sends(upload, service, step), EXPECTED)
    upload.withdraw()
    assert service.there == Found("other", "x", 1)
    assert "remove" not in service.log


def test_name_that_is_taken_again_and_again(service: Service) -> None:
    upload = Upload(service, seconds=0)
    with pytest.raises(exceptions.Duplicate):
        upload.publish(Sends(upload, service, "taken"), EXPECTED)
    assert not upload.uncertain


def test_refusal_is_not_repeated(service: Service) -> None:
    upload = Upload(service)
    with pytest.raises(Refused):
        upload.publish(Sends(upload, service, "refused"), EXPECTED)
    upload.withdraw()
    # Certainly nothing is there: nothing has to be looked for.
    assert service.log == ["send", "look"]


@pytest.mark.parametrize("step", ["unanswered", "damaged", "damaged-answer-lost"])
def test_what_cannot_be_sent_again(service: Service, step: str) -> None:
    upload = Upload(service)
    with pytest.raises(exceptions.BackendUnavailable):
        upload.publish(Sends(upload, service, step), EXPECTED, repeatable=False)
    assert service.log.count("send") == 1
    upload.withdraw()
    assert service.there is None


def test_object_that_appears_late_is_removed(service: Service) -> None:
    upload = Upload(service, seconds=0)
    with pytest.raises(Unanswered):
        upload.publish(Sends(upload, service, "unanswered"), EXPECTED)

    def appear() -> None:
        service.there = Found(upload.mark, ETAG, SIZE)

    service.looks = [lambda: None, appear]
    upload.withdraw()
    assert service.there is None
    assert service.log[-1] == "remove"


def test_object_that_never_appears_is_mentioned(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    upload = Upload(service, seconds=0)
    with pytest.raises(Unanswered):
        upload.publish(Sends(upload, service, "unanswered"), EXPECTED)
    upload.withdraw()
    assert "the service did not say whether it stored the object" in caplog.text
    assert service.log.count("look") == 2 + len(claim._RECHECKS)


def test_an_interrupt_leaves_nothing(service: Service) -> None:
    upload = Upload(service)

    def send() -> None:
        service.there = Found(upload.mark, ETAG, SIZE)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upload.publish(send, EXPECTED)
    upload.withdraw()
    assert service.there is None


def test_of_two_uploads_in_a_process_one_waits(service: Service) -> None:
    """Also where the service knows no condition: the second one sees what the first has stored."""
    first, second = Upload(service), Upload(service)
    begun, go_on = threading.Event(), threading.Event()

    def upload_first() -> None:
        with first.alone():
            begun.set()
            assert go_on.wait(60)
            first.publish(Sends(first, service, "stored"), EXPECTED)

    def upload_second() -> None:
        assert begun.wait(60)
        with second.alone():
            raise AssertionError("the name is taken")

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(upload_first), pool.submit(upload_second)
        assert begun.wait(60)
        go_on.set()
        one.result(60)
        with pytest.raises(exceptions.Duplicate):
            other.result(60)
    assert service.there is not None
    assert service.there.mark == first.mark


@pytest.mark.parametrize("in_flight", [True, False])
def test_name_that_cannot_be_looked_at(service: Service, in_flight: bool) -> None:
    """The token has ended: what is under way needs none."""

    def fail() -> None:
        raise Refused("the token is refused")

    service.looks = [fail]
    upload = Upload(service)
    if not in_flight:
        with pytest.raises(Refused), upload.alone():
            raise AssertionError("nobody knows whether the name is free")
        return
    with upload.alone(in_flight=True):
        upload.publish(Sends(upload, service, "stored"), EXPECTED)
    assert service.there is not None


@pytest.mark.parametrize("in_flight", [True, False])
def test_name_that_is_taken_meanwhile(service: Service, in_flight: bool) -> None:
    service.there = Found("other")
    with pytest.raises(exceptions.Duplicate), Upload(service).alone(in_flight):
        raise AssertionError("the name is taken")


@pytest.mark.parametrize("mark", ["other", ""])
def test_name_that_is_not_free(service: Service, mark: str) -> None:
    service.there = Found(mark)
    with pytest.raises(exceptions.Duplicate):
        Upload(service).check_free()
