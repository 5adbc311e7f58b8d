# SPDX-License-Identifier: Apache-2.0
"""The fault proxy in front of real servers: each fault does what it says, and nothing is left."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import PATIENCE, Serving, eventually
from tests.faults.http import How, Request
from tests.faults.proxy import FaultProxy
from tests.services.http_server import WebServer, deaf_port

DATA = random.Random(1).randbytes(3_000_000)
DIRECTIONS = ["up", "down"]


@pytest.fixture
def proxy(echo: Serving) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", echo.port) as between:
        yield between


@pytest.fixture
def web_proxy(web: WebServer) -> Iterator[FaultProxy]:
    web.serve("/image", DATA)
    with FaultProxy("127.0.0.1", web.port, http=True) as between:
        yield between


@pytest.fixture
def upload_proxy(uploads: Serving) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", uploads.port, http=True) as between:
        yield between


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), PATIENCE)


def receive(sock: socket.socket, size: int) -> bytes:
    """Receive so many bytes, fewer at the end of the connection."""
    data = bytearray()
    while len(data) < size and (part := sock.recv(size - len(data))):
        data += part
    return bytes(data)


def exchange(proxy: FaultProxy, data: bytes) -> bytes:
    """Send data, end the sending, and return all that comes back."""
    errors: list[OSError] = []
    with connect(proxy) as sock:
        sender = threading.Thread(target=_send_all, args=(sock, data, errors))
        sender.start()
        try:
            received = receive(sock, len(data) + 1000)
        finally:
            sender.join()
    for error in errors:
        # A reset is reported once, to whoever comes first.
        if isinstance(error, ConnectionResetError):
            raise error
    return received


def _send_all(sock: socket.socket, data: bytes, errors: list[OSError]) -> None:
    try:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    except OSError as exc:
        errors.append(exc)


def is_silent(sock: socket.socket) -> bool:
    """Tell whether nothing comes, not even an end; lets a short time pass."""
    sock.settimeout(0.1)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(PATIENCE)
    return False


@contextlib.contextmanager
def client(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)
    ) as connection:
        yield connection


def ask(connection: http.client.HTTPConnection, *request: Any, **options: Any) -> tuple[int, bytes]:
    connection.request(*request, **options)
    with connection.getresponse() as response:
        return response.status, response.read()


# Without a fault


def test_everything_passes_in_both_directions(proxy: FaultProxy, echo: Serving) -> None:
    assert exchange(proxy, DATA) == DATA + b"goodbye"
    assert echo.received[-1] == "end"
    assert (proxy.accepted, proxy.bytes_up, proxy.bytes_down) == (1, len(DATA), len(DATA) + 7)
    assert eventually(lambda: proxy.open == 0)
    assert echo.open == 0


def test_forty_connections_at_once(proxy: FaultProxy) -> None:
    images = [random.Random(number).randbytes(300_000) for number in range(40)]
    results: dict[int, bytes] = {}

    def run(number: int) -> None:
        results[number] = exchange(proxy, images[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[number] for number in range(40)] == [image + b"goodbye" for image in images]
    assert proxy.accepted == 40


def test_a_client_that_goes_away_is_seen_by_the_server(proxy: FaultProxy, echo: Serving) -> None:
    with connect(proxy) as sock:
        sock.sendall(b"hello")
        assert receive(sock, 5) == b"hello"
        sock.sendall(b"unread")
        assert eventually(lambda: proxy.bytes_down == 11)
        # With an unread answer closing means a reset.
    assert eventually(lambda: proxy.open == 0 and echo.open == 0)
    assert echo.received[-1] == "reset"


def test_no_server_behind_the_proxy() -> None:
    with deaf_port() as port, FaultProxy("127.0.0.1", port) as proxy:
        with pytest.raises(ConnectionResetError), connect(proxy) as sock:
            receive(sock, 1)
        assert eventually(lambda: proxy.open == 0)


def test_a_client_that_does_not_read_is_waited_for(proxy: FaultProxy) -> None:
    errors: list[OSError] = []
    with connect(proxy) as sock:
        sender = threading.Thread(target=_send_all, args=(sock, DATA * 10, errors))
        sender.start()
        # Until all buffers are full.
        sender.join(0.5)
        assert receive(sock, len(DATA) * 10) == DATA * 10
        sender.join()
    assert errors == []


def test_nothing_is_left_of_open_connections(echo: Serving) -> None:
    before = set(os.listdir("/proc/self/fd")), threading.active_count()
    with FaultProxy("127.0.0.1", echo.port) as proxy:
        with connect(proxy) as sock, connect(proxy) as idle:
            sock.sendall(b"hello")
            assert receive(sock, 5) == b"hello"
            proxy.__exit__()
            for end in (sock, idle):
                with pytest.raises(ConnectionResetError):
                    receive(end, 1)
        with pytest.raises(RuntimeError, match="does not run"):
            proxy.clear()
        proxy.__enter__()
    assert eventually(lambda: echo.open == 0)
    assert eventually(
        lambda: (set(os.listdir("/proc/self/fd")), threading.active_count()) == before
    )


# Slow


def test_latency_is_one_way(proxy: FaultProxy) -> None:
    proxy.inject(latency=0.05)
    start = time.monotonic()
    with connect(proxy) as sock:
        for number in range(3):
            sock.sendall(b"hello")
            assert receive(sock, 5) == b"hello"
            # A lower bound: there, back, and once there and back for the handshake.
            assert time.monotonic() - start >= 0.1 * (number + 2)


def test_latency_does_not_limit_the_rate(proxy: FaultProxy) -> None:
    proxy.inject(latency=0.01)
    assert exchange(proxy, DATA) == DATA + b"goodbye"


def test_bandwidth_takes_its_time(proxy: FaultProxy) -> None:
    proxy.inject(bandwidth=5_000_000)
    start = time.monotonic()
    assert exchange(proxy, DATA) == DATA + b"goodbye"
    assert time.monotonic() - start >= 0.6


def test_a_byte_a_second_and_no_limit_any_more(proxy: FaultProxy) -> None:
    proxy.inject(bandwidth=1)
    with connect(proxy) as sock:
        sock.sendall(b"hello")
        assert is_silent(sock)
        proxy.inject(bandwidth=None)
        assert receive(sock, 5) == b"hello"


def test_latency_can_change_under_what_is_on_the_way(proxy: FaultProxy) -> None:
    proxy.inject(latency=1000)
    with connect(proxy) as sock:
        sock.sendall(b"hello")
        assert is_silent(sock)
        proxy.inject(latency=0)
        assert receive(sock, 5) == b"hello"
    assert eventually(lambda: proxy.open == 0)


def test_an_end_is_not_faster_than_the_bytes(proxy: FaultProxy) -> None:
    proxy.inject(latency=0.02, bandwidth=20_000_000)
    assert exchange(proxy, DATA[:100_000]) == DATA[:100_000] + b"goodbye"


# Cut


@pytest.mark.parametrize("latency", [0, 0.01])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("after", [0, 1, 1_000_000])
def test_truncation(
    proxy: FaultProxy, echo: Serving, direction: str, after: int, latency: float
) -> None:
    proxy.inject(truncate_after=after, direction=direction, latency=latency)
    received = exchange(proxy, DATA)
    if direction == "down":
        assert received == DATA[:after]
    else:
        assert DATA.startswith(received)
        assert eventually(lambda: "end" in echo.received or "reset" in echo.received or not after)
        sent = b"".join(part for part in echo.received if isinstance(part, bytes))
        assert sent == DATA[:after]
    assert eventually(lambda: proxy.open == 0 and echo.open == 0)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("after", [0, 1, 1_000_000])
def test_reset(proxy: FaultProxy, echo: Serving, direction: str, after: int) -> None:
    proxy.inject(reset_after=after, direction=direction)
    with pytest.raises(ConnectionResetError):
        exchange(proxy, DATA)
    assert eventually(lambda: proxy.open == 0 and echo.open == 0)
    if direction == "up":
        assert proxy.bytes_up == after
    else:
        assert proxy.bytes_down == after


@pytest.mark.parametrize("fault", ["reset_after", "truncate_after"])
def test_an_open_connection_is_cut(proxy: FaultProxy, fault: str) -> None:
    with connect(proxy) as sock:
        sock.sendall(b"hello")
        assert receive(sock, 5) == b"hello"
        proxy.inject(**{fault: 3})
        if fault == "reset_after":
            with pytest.raises(ConnectionResetError):
                receive(sock, 1)
        else:
            assert receive(sock, 1) == b""


def test_as_many_connections_as_told_are_cut(proxy: FaultProxy) -> None:
    proxy.inject(truncate_after=2, times=2)
    results = [exchange(proxy, b"hello") for _time in range(4)]
    assert results == [b"he", b"he", b"hellogoodbye", b"hellogoodbye"]


def test_what_waits_on_a_cut_connection_keeps_nobody_busy(proxy: FaultProxy) -> None:
    proxy.inject(latency=0.01, bandwidth=1_000_000)
    with connect(proxy) as sock:
        sock.sendall(DATA[:100_000])
        assert receive(sock, 10_000) == DATA[:10_000]
        proxy.inject(truncate_after=1)
        # All that the proxy has read comes, then the end, and the connection waits for the client.
        assert DATA[10_000:].startswith(receive(sock, len(DATA)))
        # Nothing is due for ever: that would be a busy loop.
        assert [connection.due for connection in proxy._connections] == [None]


# Silent, refused


def test_a_black_hole_accepts_and_says_nothing(proxy: FaultProxy, echo: Serving) -> None:
    proxy.inject(black_hole=True)
    with connect(proxy) as sock:
        sock.sendall(b"hello")
        assert is_silent(sock)
        assert (proxy.open, echo.open) == (1, 0)
    # The client gave up.
    assert eventually(lambda: proxy.open == 0)
    assert echo.received == []


def test_an_open_connection_falls_into_a_black_hole_and_comes_back(
    proxy: FaultProxy, echo: Serving
) -> None:
    with connect(proxy) as sock, connect(proxy) as other:
        sock.sendall(b"hello")
        assert receive(sock, 5) == b"hello"
        proxy.inject(black_hole=True)
        sock.sendall(b"again")
        assert is_silent(sock)
        proxy.inject(black_hole=False)
        assert receive(sock, 5) == b"again"
        other.sendall(b"hello")
        assert receive(other, 5) == b"hello"


def test_refused_and_accepted_again_on_the_same_port(proxy: FaultProxy) -> None:
    with connect(proxy) as sock:
        for _time in range(3):
            proxy.inject(refuse=True)
            with pytest.raises(ConnectionRefusedError):
                connect(proxy)
            sock.sendall(b"hello")
            assert receive(sock, 5) == b"hello"
            proxy.inject(refuse=False)
            assert exchange(proxy, b"new") == b"newgoodbye"


@pytest.mark.parametrize(
    "faults",
    [
        {"latency": -1},
        {"bandwidth": 0},
        {"reset_after": 1, "truncate_after": 1},
        {"direction": "sideways"},
        {"times": -1},
    ],
)
def test_faults_that_make_no_sense(proxy: FaultProxy, faults: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"it has to be|set one of them"):
        proxy.inject(**faults)
    with pytest.raises(TypeError):
        proxy.inject(slowness=1)
    assert exchange(proxy, b"hello") == b"hellogoodbye"


# HTTP


def test_requests_are_counted(web_proxy: FaultProxy) -> None:
    with client(web_proxy) as connection:
        assert ask(connection, "GET", "/image?x=1") == (200, DATA)
        assert ask(connection, "HEAD", "/image") == (200, b"")
        assert ask(connection, "GET", "/nothing")[0] == 404
    assert web_proxy.requests == [
        Request(1, "GET", "/image?x=1"),
        Request(2, "HEAD", "/image"),
        Request(3, "GET", "/nothing"),
    ]
    assert web_proxy.accepted == 1
    web_proxy.clear()
    assert web_proxy.requests == []


@pytest.mark.parametrize("status", [500, 503])
def test_a_request_is_answered_instead_of_forwarded(
    web_proxy: FaultProxy, web: WebServer, status: int
) -> None:
    web_proxy.fail_request(2, status)
    with client(web_proxy) as connection:
        results = [ask(connection, "GET", "/image")[0] for _time in range(3)]
    assert results == [200, status, 200]
    # On one connection, as for an error of the server.
    assert (web_proxy.accepted, len(web.requests)) == (1, 2)


def test_a_request_fails_for_good_and_others_do_not(web_proxy: FaultProxy, web: WebServer) -> None:
    web.serve("/other", b"other")
    web_proxy.fail_request(1, times=None)
    with client(web_proxy) as connection:
        paths = ["/image", "/other", "/image"]
        assert [ask(connection, "GET", path)[0] for path in paths] == [503, 200, 503]
        web_proxy.clear()
        web_proxy.fail_request(2, times=None, everything=True)
        paths = ["/other", "/image", "/other"]
        assert [ask(connection, "GET", path)[0] for path in paths] == [200, 503, 503]


@pytest.mark.parametrize("after", [None, 0, 5, 100_000])
@pytest.mark.parametrize("how", [How.RESET, How.TRUNCATE, How.SILENCE])
def test_a_request_breaks(
    web_proxy: FaultProxy, web: WebServer, how: How, after: int | None
) -> None:
    web_proxy.fail_request(1, how=how, after=after)
    with connect(web_proxy) as sock:
        sock.sendall(b"GET /image HTTP/1.1\r\nHost: h\r\n\r\n")
        if how is How.RESET:
            with pytest.raises(ConnectionResetError):
                receive(sock, len(DATA))
        else:
            assert len(receive(sock, after or 0)) == (after or 0)
            if how is How.SILENCE:
                assert is_silent(sock)
            else:
                assert receive(sock, 1) == b""
    assert eventually(lambda: web_proxy.open == 0)
    assert len(web.requests) == (after is not None)
    with client(web_proxy) as connection:
        assert ask(connection, "GET", "/image") == (200, DATA)


def test_an_answer_shorter_than_the_limit_comes_in_full(web_proxy: FaultProxy) -> None:
    web_proxy.fail_request(1, how=How.RESET, after=10**9)
    with client(web_proxy) as connection:
        assert ask(connection, "GET", "/image") == (200, DATA)
        assert ask(connection, "GET", "/image") == (200, DATA)


def pieces() -> Iterator[bytes]:
    yield from (DATA[:100_000], DATA[100_000:])


BODIES = {"length": lambda: DATA, "chunked": pieces}


@pytest.mark.parametrize("body", list(BODIES))
def test_an_upload_is_answered_after_its_body(
    upload_proxy: FaultProxy, uploads: Serving, body: str
) -> None:
    upload_proxy.fail_request(2)
    with client(upload_proxy) as connection:
        for number, status in enumerate((201, 503, 201)):
            content = BODIES[body]()
            chunked = body == "chunked"
            result, _text = ask(connection, "PUT", f"/{number}", content, encode_chunked=chunked)
            assert result == status
    assert uploads.received == [("/0", DATA), ("/2", DATA)]
    assert [request.target for request in upload_proxy.requests] == ["/0", "/1", "/2"]
    assert upload_proxy.accepted == 1


def test_an_upload_is_answered_before_its_body(upload_proxy: FaultProxy, uploads: Serving) -> None:
    upload_proxy.fail_request(1, drain=False)
    with connect(upload_proxy) as sock:
        sock.sendall(b"PUT /a HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n")
        assert receive(sock, 12) == b"HTTP/1.1 503"
        with pytest.raises((ConnectionResetError, BrokenPipeError)):  # noqa: PT012 - many bytes
            for _time in range(1000):
                sock.sendall(DATA)
    assert uploads.received == []


@pytest.mark.parametrize("body", list(BODIES))
def test_an_upload_succeeds_and_the_client_is_told_otherwise(
    upload_proxy: FaultProxy, uploads: Serving, body: str
) -> None:
    upload_proxy.fail_request(1, 500, after=0)
    with client(upload_proxy) as connection:
        chunked = body == "chunked"
        assert ask(connection, "PUT", "/a", BODIES[body](), encode_chunked=chunked)[0] == 500
    assert uploads.received == [("/a", DATA)]


def test_an_upload_whose_answer_is_lost(upload_proxy: FaultProxy, uploads: Serving) -> None:
    upload_proxy.fail_request(1, how=How.RESET, after=0)
    with client(upload_proxy) as connection, pytest.raises(ConnectionResetError):
        ask(connection, "PUT", "/a", DATA)
    assert uploads.received == [("/a", DATA)]


HESITANT = b"PUT /a HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_client_that_waits_for_permission(upload_proxy: FaultProxy, uploads: Serving) -> None:
    with connect(upload_proxy) as sock:
        sock.sendall(HESITANT)
        assert receive(sock, len(CONTINUE)) == CONTINUE
        sock.sendall(b"hello")
        assert receive(sock, 12) == b"HTTP/1.1 201"
    assert uploads.received == [("/a", b"hello")]


def test_a_client_that_waits_for_permission_is_answered_at_once(upload_proxy: FaultProxy) -> None:
    upload_proxy.fail_request(1)
    with connect(upload_proxy) as sock:
        sock.sendall(HESITANT)
        answer = receive(sock, 1000)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"Connection: close" in answer


def test_permission_is_no_answer(upload_proxy: FaultProxy, uploads: Serving) -> None:
    upload_proxy.fail_request(1, 500, after=0)
    with connect(upload_proxy) as sock:
        sock.sendall(HESITANT)
        assert receive(sock, len(CONTINUE)) == CONTINUE
        sock.sendall(b"hello")
        assert receive(sock, 1000).startswith(b"HTTP/1.1 500")
    assert uploads.received == [("/a", b"hello")]


def test_injected_answers_are_late_too(web_proxy: FaultProxy) -> None:
    web_proxy.inject(latency=0.05)
    web_proxy.fail_request(1)
    start = time.monotonic()
    with client(web_proxy) as connection:
        assert ask(connection, "GET", "/image")[0] == 503
    assert time.monotonic() - start >= 0.05


def test_each_request(web_proxy: FaultProxy) -> None:
    def download() -> list[int]:
        with client(web_proxy) as connection:
            return [ask(connection, method, "/image")[0] for method in ("HEAD", "GET", "HEAD")]

    results = {}
    for number in web_proxy.each_request(download):
        web_proxy.fail_request(number)
        results[number] = download()
    assert results == {1: [503, 200, 200], 2: [200, 503, 200], 3: [200, 200, 503]}
    assert download() == [200, 200, 200]


@pytest.mark.parametrize("options", [{"after": 5}, {"after": -1}, {"times": 0}, {"number": 0}])
def test_failures_that_make_no_sense(web_proxy: FaultProxy, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"count from 1|after has to be"):
        web_proxy.fail_request(**{"number": 1, **options})


def test_requests_can_fail_only_where_they_are_looked_for(proxy: FaultProxy) -> None:
    with pytest.raises(ValueError, match="http=True"):
        proxy.fail_request(1)


# The command


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "tests.faults", *arguments]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_command(echo: Serving, end: signal.Signals) -> None:
    options = ["--listen", "0", "--latency", "0.001", "--bandwidth", "40MiB"]
    with subprocess.Popen(
        command(f"127.0.0.1:{echo.port}", *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            assert process.stdout is not None
            place = process.stdout.readline().split()[-1]
            host, _colon, port = place.partition(":")
            with socket.create_connection((host, int(port)), PATIENCE) as sock:
                sock.sendall(b"hello")
                assert receive(sock, 5) == b"hello"
            process.send_signal(end)
            assert process.communicate(timeout=PATIENCE) == ("", "")
        finally:
            process.kill()
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "HOST:PORT"),
        (["127.0.0.1:1", "--bandwidth", "40MB"], "unit"),
        (["127.0.0.1:1", "--latency", "-1"], "latency"),
    ],
)
def test_mistakes_at_the_command(arguments: list[str], complaint: str) -> None:
    result = subprocess.run(
        command(*arguments),
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert result.returncode == 2
    assert complaint in result.stderr
