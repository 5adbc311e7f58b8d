# SPDX-License-Identifier: Apache-2.0
"""A read that breaks off is asked for again, as often as allowed and where it may help."""

from __future__ import annotations

import datetime
import logging
import threading
from typing import Any

import pytest

from glance_store import exceptions
from glance_store.transfer import retry
from glance_store.transfer.download import Download
from glance_store.transfer.interface import Extent, ImageReader, Stream
from glance_store.transfer.retry import Patience, ResumingReader, ResumingStreamingReader

from .memory import PATIENCE, MemoryReader, collect, pattern, wait
from .streaming import FAST, RANGE, SIZE, SLOW, StreamingMemoryReader, ticking

DATA = pattern(100)
Gone = exceptions.BackendUnavailable


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


class Clock:
    """Time that passes in pauses, and where a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.taken: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.taken.append(round(seconds, 3))
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    monkeypatch.setattr(retry, "_SPREAD", (1.0, 1.0))
    monkeypatch.setattr(Patience, "wait", clock.wait)
    return clock


@pytest.fixture
def pauses(clock: Clock) -> list[float]:
    return clock.taken


def test_it_is_a_reader() -> None:
    inner = MemoryReader(DATA, 7, layout=[Extent(0, 60, True), Extent(60, 40, False)])
    reader = ResumingReader(inner, Patience(3))
    assert isinstance(reader, ImageReader)
    assert (reader.size, reader.concurrency) == (100, 7)
    assert list(reader.extents(50, 20)) == [Extent(50, 10, True), Extent(60, 10, False)]
    assert ResumingReader(MemoryReader(DATA, size=None), Patience(3)).size is None
    reader.close()
    inner.check_closed()


def test_a_read_that_succeeds_takes_one_try(pauses: list[float]) -> None:
    inner = MemoryReader(DATA)
    assert ResumingReader(inner, Patience(3)).read_at(10, 5) == DATA[10:15]
    assert inner.reads == [(10, 5)]
    assert pauses == []


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_read_is_tried_again(
    failures: int, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    inner = Flaky([Gone("cable cut") for _number in range(failures)])
    assert ResumingReader(inner, Patience(30)).read_at(10, 5) == DATA[10:15]
    assert inner.reads == [(10, 5)] * (failures + 1)
    assert pauses == [0.2, 0.4, 0.8][:failures]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * failures
    message = caplog.records[0].getMessage()
    assert "byte 10 " in message
    assert "cable cut" in message
    assert "trying again in 0.2 s, for 30 s more" in message
    assert "\n" not in message


@pytest.mark.parametrize("seconds", [0, 1, 30])
def test_it_gives_up_when_the_time_is_over(seconds: float, clock: Clock) -> None:
    errors = [Gone(f"try {number}") for number in range(99)]
    inner = Flaky(list(errors))
    with pytest.raises(Gone) as caught:
        ResumingReader(inner, Patience(seconds)).read_at(0, 5)
    # The last try begins when the time is up, not before it.
    assert sum(clock.taken) == pytest.approx(seconds)
    assert caught.value is errors[len(clock.taken)]
    assert len(inner.reads) == len(clock.taken) + 1


def test_a_try_that_takes_long_counts(clock: Clock) -> None:
    """What has run into a time limit of a minute is tried twice, not for ten minutes."""

    def call() -> None:
        clock.now += 60
        raise Gone

    with pytest.raises(Gone):
        Patience(30).call(call)
    assert clock.taken == [0.2]


def test_each_read_has_all_its_time(clock: Clock) -> None:
    reader = ResumingReader(inner := Flaky([]), Patience(0.6))
    for offset in (0, 5):
        inner.errors = [Gone(), Gone()]
        assert reader.read_at(offset, 5) == DATA[offset : offset + 5]
    assert clock.taken == [0.2, 0.4, 0.2, 0.4]


def test_clean_up_has_its_time_in_all(clock: Clock) -> None:
    patience = Patience(1.0, in_all=True)
    reader = ResumingReader(inner := Flaky([Gone(), Gone()]), patience)
    assert reader.read_at(0, 5) == DATA[:5]
    inner.errors = [Gone() for _number in range(9)]
    with pytest.raises(Gone):
        reader.read_at(5, 5)
    assert sum(clock.taken) == pytest.approx(1.0)


def test_clean_up_by_several_threads_has_as_much_time(clock: Clock) -> None:
    """Seconds count once, however many requests wait for the end of one outage."""
    patience = Patience(1.0, in_all=True)
    requests = [patience.tries() for _number in range(4)]
    for moment in (1000.0, 1000.2):
        for tries in requests:
            clock.now = moment
            assert tries.again(Gone())
    assert clock.taken == [0.2] * 4 + [0.4] * 4


def test_pauses_grow_to_a_limit(pauses: list[float]) -> None:
    inner = Flaky([Gone() for _number in range(9)])
    ResumingReader(inner, Patience(60)).read_at(0, 5)
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5, 5]


def test_pauses_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many transfers that fail together do not come again in the same moment."""
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    monkeypatch.setattr(Patience, "wait", clock.wait)
    for _number in range(20):
        ResumingReader(Flaky([Gone()]), Patience(30)).read_at(0, 5)
    assert len(set(clock.taken)) > 1
    assert all(0.16 <= pause <= 0.24 for pause in clock.taken)


def test_tries_can_be_counted(pauses: list[float], caplog: pytest.LogCaptureFixture) -> None:
    inner = Flaky([Gone() for _number in range(9)])
    with pytest.raises(Gone):
        ResumingReader(inner, Patience(60, most=2)).read_at(0, 5)
    assert pauses == [0.2, 0.4]
    assert [record.getMessage()[-12:] for record in caplog.records] == [
        "2 tries left",
        "1 tries left",
    ]


class Asking(exceptions.BackendUnavailable):
    """A server that says when it wants to be asked again."""

    def __init__(self, seconds: float) -> None:
        super().__init__("busy")
        self.retry_after = seconds


def test_a_server_says_when(pauses: list[float]) -> None:
    inner = Flaky([Asking(7), Asking(0.1)])
    assert ResumingReader(inner, Patience(30)).read_at(0, 5) == DATA[:5]
    assert pauses == [7, 0.4]


def test_a_server_that_wants_more_time_than_there_is(pauses: list[float]) -> None:
    """Coming too early would be in vain, and so would waiting."""
    with pytest.raises(Asking):
        ResumingReader(Flaky([Asking(31)]), Patience(30)).read_at(0, 5)
    assert pauses == []


class Odd(exceptions.BackendUnavailable):
    patience = 1.0


def test_a_failure_that_is_worth_less(clock: Clock) -> None:
    with pytest.raises(Odd):
        ResumingReader(Flaky([Odd() for _number in range(99)]), Patience(30)).read_at(0, 5)
    assert sum(clock.taken) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        ("1.5", 0),
        (" 120 ", 120),
        ("99999999999999999999", 999999999),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 99999999999999 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 +9999999999999", 0),
    ],
)
def test_retry_after(text: str | None, seconds: float) -> None:
    assert retry.seconds_asked(text) == seconds


@pytest.mark.parametrize("zone", [" GMT", " -0000", ""])
def test_retry_after_a_date(zone: str) -> None:
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=2)
    text = soon.strftime("%a, %d %b %Y %H:%M:%S") + zone
    assert 110 < retry.seconds_asked(text) <= 120


def test_retry_after_a_date_of_another_clock() -> None:
    """What counts is how far it is from the time that the server takes it to be."""
    text, date = "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:27:30 GMT"
    assert retry.seconds_asked(text, date) == 30
    assert retry.seconds_asked(text, "noon") == 0


def test_whoever_ends_a_transfer_ends_its_pauses() -> None:
    patience, failed = Patience(3600), threading.Event()
    errors: list[Exception] = []

    def call() -> None:
        failed.set()
        raise Gone("for long")

    def work() -> None:
        try:
            patience.call(call)
        except Gone as exc:
            errors.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    wait(failed)
    patience.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert len(errors) == 1


def test_nothing_is_tried_again_after_the_end(pauses: list[float]) -> None:
    patience = Patience(30)
    patience.stop()
    inner = Flaky([Gone()])
    with pytest.raises(Gone):
        ResumingReader(inner, patience).read_at(0, 5)
    assert pauses == []


@pytest.mark.parametrize(
    "error",
    [
        exceptions.NotFound(image="x"),
        exceptions.RemoteServiceUnavailable(),
        exceptions.Forbidden(),
        OSError("broken"),
    ],
    ids=repr,
)
def test_what_no_further_try_cures(error: Exception, pauses: list[float]) -> None:
    inner = Flaky([error])
    with pytest.raises(type(error)) as caught:
        ResumingReader(inner, Patience(3)).read_at(0, 5)
    assert caught.value is error
    assert len(inner.reads) == 1
    assert pauses == []


def test_a_lasting_error_after_a_passing_one(pauses: list[float]) -> None:
    inner = Flaky([Gone(), exceptions.NotFound(image="x")])
    with pytest.raises(exceptions.NotFound):
        ResumingReader(inner, Patience(3)).read_at(0, 5)
    assert len(inner.reads) == 2


def test_the_caller_says_what_is_transient(pauses: list[float]) -> None:
    inner = Flaky([ConnectionResetError(), BrokenPipeError()])
    reader = ResumingReader(inner, Patience(2), transient=(ConnectionResetError, BrokenPipeError))
    assert reader.read_at(0, 5) == DATA[:5]
    inner.errors = [Gone()]
    with pytest.raises(Gone):
        reader.read_at(0, 5)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_download_survives(concurrency: int, pauses: list[float]) -> None:
    inner = Flaky([Gone(), Gone()], concurrency)
    assert b"".join(Download(ResumingReader(inner, Patience(2)), 5, 80, 16)) == DATA[5:85]
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

    said = Patience(5).call(call, lambda exc: isinstance(exc, OSError), lambda exc: f"It was {exc}")
    assert said == "done"
    assert pauses == [0.2, 0.4]
    assert "It was twice; trying again in 0.4 s, for 5 s more" in caplog.text


class Breaking(StreamingMemoryReader):
    """Its streams, and the attempts to open them, fail at given offsets, each error once."""

    def __init__(
        self,
        breaks: dict[int, list[BaseException]] | None = None,
        refusals: dict[int, list[BaseException]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(DATA, 3, range_size=64, breaks=breaks, refusals=refusals, **options)

    def asked(self) -> list[tuple[int, int]]:
        return [(stream.offset, stream.length) for stream in self.streams]

    def check_released(self) -> None:
        assert all(stream.closed for stream in self.streams)
        assert self.most_open <= 1


def read_to_end(stream: Stream, length: int = 16) -> bytes:
    return b"".join(iter(lambda: stream.read(length), b""))


def test_it_is_a_reader_of_streams() -> None:
    inner = Breaking()
    reader = ResumingStreamingReader(inner, Patience(3))
    assert isinstance(reader, ImageReader)
    assert (reader.size, reader.concurrency, reader.range_size) == (100, 3, 64)
    assert reader.read_at(5, 10) == DATA[5:15]
    stream = reader.open_stream(5, 80)
    assert read_to_end(stream, 30) == DATA[5:85]
    assert inner.asked() == [(5, 80)]
    assert inner.streams[0].wanted == [30, 30, 30]
    # The end stays the end; nobody is asked.
    assert stream.read(1) == b""
    stream.close()
    stream.close()
    inner.check_released()
    reader.close()
    inner.check_closed()


@pytest.mark.parametrize("seconds", [0, 2])
def test_a_stream_goes_on_where_it_broke_off(
    seconds: float, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """However often: a break after progress is no failed try."""
    caplog.set_level(logging.INFO)
    inner = Breaking({at: [Gone("cable cut")] for at in (23, 24, 70)})
    stream = ResumingStreamingReader(inner, Patience(seconds)).open_stream(10, 80)
    assert read_to_end(stream) == DATA[10:90]
    assert inner.asked() == [(10, 80), (23, 67), (24, 66), (70, 20)]
    assert pauses == []
    assert [record.levelno for record in caplog.records] == [logging.INFO] * 3
    assert "byte 23 (cable cut)" in caplog.records[0].getMessage()
    stream.close()
    inner.check_released()


def test_each_position_has_all_its_time(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    # At 0 and at 40 no stream is open; at 20 and 40 one breaks first, which is no try.
    inner = Breaking(
        {0: [Gone()], 20: [Gone()] * 3, 40: [Gone()]}, {0: [Gone()], 40: [Gone("shut")] * 2}
    )
    stream = ResumingStreamingReader(inner, Patience(0.6)).open_stream(0, 100)
    assert read_to_end(stream, 10) == DATA
    assert inner.asked() == [(0, 100), (0, 100), (20, 80), (20, 80), (20, 80), (40, 60)]
    assert pauses == [0.2, 0.4] * 3
    assert "broke off at byte 40 (shut); trying again in 0.2 s, for 1 s more" in caplog.text
    stream.close()
    inner.check_released()


@pytest.mark.parametrize("at", [0, 33])
@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_stream_is_given_up(retries: int, at: int, pauses: list[float]) -> None:
    errors: list[BaseException] = [Gone(f"try {number}") for number in range(retries + 3)]
    last = errors[retries + bool(at)]  # the first one after progress is no try
    inner = Breaking({at: errors})
    stream = ResumingStreamingReader(inner, Patience(60, most=retries)).open_stream(0, 100)
    data: list[bytes] = []
    with pytest.raises(Gone) as caught:
        collect(iter(lambda: stream.read(10), b""), data)
    assert caught.value is last
    assert b"".join(data) == DATA[:at]
    assert len(pauses) == retries
    stream.close()
    inner.check_released()


@pytest.mark.parametrize("at", [0, 33])
@pytest.mark.parametrize("where", ["breaks", "refusals"])
@pytest.mark.parametrize("error", [exceptions.NotFound(image="x"), OSError("broken")], ids=repr)
def test_what_no_further_stream_cures(
    error: Exception, where: str, at: int, pauses: list[float]
) -> None:
    # For one at 33 to be opened the first has to break there.
    breaks: dict[int, list[BaseException]] = {33: [Gone()]} if at else {}
    if where == "breaks":
        breaks[at] = [error]
    inner = Breaking(breaks, {at: [error]} if where == "refusals" else {})
    stream = ResumingStreamingReader(inner, Patience(3)).open_stream(0, 100)
    data: list[bytes] = []
    with pytest.raises(type(error)) as caught:
        collect(iter(lambda: stream.read(10), b""), data)
    assert caught.value is error
    assert b"".join(data) == DATA[:at]
    assert pauses == []
    stream.close()
    inner.check_released()


def test_the_caller_says_what_is_transient_for_a_stream(pauses: list[float]) -> None:
    inner = Breaking({20: [ConnectionResetError(), BrokenPipeError()], 50: [Gone()]})
    reader = ResumingStreamingReader(
        inner, Patience(1), transient=(ConnectionResetError, BrokenPipeError)
    )
    stream = reader.open_stream(0, 100)
    data: list[bytes] = []
    with pytest.raises(Gone):
        collect(iter(lambda: stream.read(10), b""), data)
    assert b"".join(data) == DATA[:50]
    assert pauses == [0.2]
    stream.close()
    inner.check_released()


def test_a_stream_that_ends_early_is_asked_for_again() -> None:
    """The image has really ended when the next one brings nothing either."""
    inner = Breaking(size=120)
    stream = ResumingStreamingReader(inner, Patience(3)).open_stream(0, 120)
    assert read_to_end(stream, 64) == DATA
    assert inner.asked() == [(0, 120), (100, 20)]
    stream.close()
    inner.check_released()


@pytest.mark.parametrize("alone", [FAST, SLOW], ids=["one", "several"])
def test_a_download_of_streams_survives(alone: float, pauses: list[float]) -> None:
    breaks: dict[int, list[BaseException]] = {at: [Gone()] for at in range(3, SIZE, 50)}
    data = pattern(SIZE)
    with ticking(alone) as clock:
        inner = StreamingMemoryReader(
            data, 3, range_size=RANGE, breaks=breaks, refusals={0: [Gone()]}, on_data=clock.spend
        )
        reader = ResumingStreamingReader(inner, Patience(1))
        assert b"".join(clock.consume(Download(reader))) == data
    assert bool(inner.ranges(beside=True)) == (alone == SLOW)
    assert not any(breaks.values())
    inner.check_closed()


class Silent:
    """A stream whose server says nothing until it is interrupted."""

    def __init__(self) -> None:
        self.reading = threading.Event()
        self.broken_off = threading.Event()

    def read(self, length: int) -> bytes:
        self.reading.set()
        assert self.broken_off.wait(PATIENCE)
        raise Gone("the connection is closed")

    def interrupt(self) -> None:
        self.broken_off.set()

    def close(self) -> None:
        pass


class SilentReader(StreamingMemoryReader):
    """An image of which nothing comes but the first bytes."""

    def __init__(self) -> None:
        super().__init__(DATA, 1, range_size=64)
        self.silent = Silent()

    def open_stream(self, offset: int, length: int) -> Any:
        return super().open_stream(offset, length) if not offset else self.silent


def test_a_read_that_hangs_ends_with_the_download() -> None:
    inner = SilentReader()
    download = Download(ResumingStreamingReader(inner, Patience(3600)), chunk_size=16)
    errors: list[BaseException] = []

    def consume() -> None:
        try:
            for _chunk in download:
                pass
        except Exception as exc:  # noqa: BLE001 - looked at below
            errors.append(exc)

    thread = threading.Thread(target=consume)
    thread.start()
    wait(inner.silent.reading)
    download.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert inner.closes == 1
    assert len(errors) == 1
