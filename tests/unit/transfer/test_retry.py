# SPDX-License-Identifier: Apache-2.0
"""A read that breaks off is asked for again, as often as allowed and where it may help."""

from __future__ import annotations

import logging

import pytest

from glance_store import exceptions
from glance_store.transfer import retry
from glance_store.transfer.download import Download
from glance_store.transfer.interface import Extent, ImageReader
from glance_store.transfer.retry import ResumingReader

from .memory import MemoryReader, pattern

DATA = pattern(100)
Gone = exceptions.RemoteServiceUnavailable


class Flaky(MemoryReader):
    """Raises one error after the other, then reads."""

    def __init__(self, errors: list[Exception], concurrency: int = 1) -> None:
        super().__init__(DATA, concurrency)
        self.errors = errors

    def read_at(self, offset: int, length: int) -> bytes:
        data = super().read_at(offset, length)
        if self.errors:
            raise self.errors.pop(0)
        return data


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", taken.append)
    return taken


def test_it_is_a_reader() -> None:
    inner = MemoryReader(DATA, 7, layout=[Extent(0, 60, True), Extent(60, 40, False)])
    reader = ResumingReader(inner, 3)
    assert isinstance(reader, ImageReader)
    assert (reader.size, reader.concurrency) == (100, 7)
    assert list(reader.extents(50, 20)) == [Extent(50, 10, True), Extent(60, 10, False)]
    assert ResumingReader(MemoryReader(DATA, size=None), 3).size is None
    reader.close()
    inner.check_closed()


def test_a_read_that_succeeds_takes_one_try(pauses: list[float]) -> None:
    inner = MemoryReader(DATA)
    assert ResumingReader(inner, 3).read_at(10, 5) == DATA[10:15]
    assert inner.reads == [(10, 5)]
    assert pauses == []


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_read_is_tried_again(
    failures: int, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    inner = Flaky([Gone("cable cut") for _number in range(failures)])
    assert ResumingReader(inner, 3, pause=0.5).read_at(10, 5) == DATA[10:15]
    assert inner.reads == [(10, 5)] * (failures + 1)
    assert pauses == [0.5, 1.0, 2.0][:failures]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * failures
    message = caplog.records[0].getMessage()
    assert "byte 10 " in message
    assert "cable cut" in message
    assert "3 tries left" in message
    assert "\n" not in message


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_it_gives_up(retries: int, pauses: list[float]) -> None:
    errors = [Gone(f"try {number}") for number in range(retries + 2)]
    inner = Flaky(list(errors))
    with pytest.raises(Gone) as caught:
        ResumingReader(inner, retries).read_at(0, 5)
    assert caught.value is errors[retries]
    assert len(inner.reads) == retries + 1
    assert len(pauses) == retries


def test_each_read_has_all_its_tries(pauses: list[float]) -> None:
    inner = Flaky([Gone(), Gone()])
    reader = ResumingReader(inner, 2)
    assert reader.read_at(0, 5) == DATA[:5]
    inner.errors = [Gone(), Gone()]
    assert reader.read_at(5, 5) == DATA[5:10]
    assert pauses == [0.2, 0.4, 0.2, 0.4]


def test_pauses_grow_to_a_limit(pauses: list[float]) -> None:
    inner = Flaky([Gone() for _number in range(9)])
    ResumingReader(inner, 9, pause=1).read_at(0, 5)
    assert pauses == [1, 2, 4, 5, 5, 5, 5, 5, 5]


@pytest.mark.parametrize(
    "error", [exceptions.NotFound(image="x"), exceptions.Forbidden(), OSError("broken")], ids=repr
)
def test_what_no_further_try_cures(error: Exception, pauses: list[float]) -> None:
    inner = Flaky([error])
    with pytest.raises(type(error)) as caught:
        ResumingReader(inner, 3).read_at(0, 5)
    assert caught.value is error
    assert len(inner.reads) == 1
    assert pauses == []


def test_a_lasting_error_after_a_passing_one(pauses: list[float]) -> None:
    inner = Flaky([Gone(), exceptions.NotFound(image="x")])
    with pytest.raises(exceptions.NotFound):
        ResumingReader(inner, 3).read_at(0, 5)
    assert len(inner.reads) == 2


def test_the_caller_says_what_is_transient(pauses: list[float]) -> None:
    inner = Flaky([ConnectionResetError(), BrokenPipeError()])
    reader = ResumingReader(inner, 2, transient=(ConnectionResetError, BrokenPipeError))
    assert reader.read_at(0, 5) == DATA[:5]
    inner.errors = [Gone()]
    with pytest.raises(Gone):
        reader.read_at(0, 5)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_download_survives(concurrency: int, pauses: list[float]) -> None:
    inner = Flaky([Gone(), Gone()], concurrency)
    assert b"".join(Download(ResumingReader(inner, 2), 5, 80, 16)) == DATA[5:85]
    assert len(pauses) == 2
    inner.check_closed()


def test_a_call_is_tried_again_while_its_error_is_passing(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = [OSError("once"), OSError("twice")]

    def call() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    said = retry.retrying(
        call, 5, lambda exc: isinstance(exc, OSError), lambda exc: f"It was {exc}"
    )
    assert said == "done"
    assert pauses == [0.2, 0.4]
    assert "It was twice; trying again in 0.4 s, 4 tries left" in caplog.text


@pytest.mark.parametrize(("error", "tries"), [(OSError("for good"), 4), (ValueError("no"), 1)])
def test_what_lasts_or_is_no_passing_error_is_raised(
    error: Exception, tries: int, pauses: list[float]
) -> None:
    made: list[int] = []

    def call() -> None:
        made.append(1)
        raise error

    with pytest.raises(type(error)) as caught:
        retry.retrying(call, 3, lambda exc: isinstance(exc, OSError))
    assert caught.value is error
    assert len(made) == tries
