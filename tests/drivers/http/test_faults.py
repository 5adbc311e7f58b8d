# SPDX-License-Identifier: Apache-2.0
"""The http store behind a network that fails, at each request of a download, once and for good.

What a server itself can do wrong is tested beside the driver's other tests; here it behaves.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import glance_store
from glance_store import exceptions
from glance_store.location import get_location_from_uri
from tests.faults.conftest import eventually
from tests.faults.http import How
from tests.faults.proxy import FaultProxy
from tests.services.http_server import Answer, File, Request, WebServer, cutting, in_turn, redirect

# A download that hangs is a failure; the limits of the store are a second or two.
pytestmark = pytest.mark.timeout(60)

IMAGE = random.Random(1).randbytes(200_000)
FIRST, LENGTH = 50_000, 100_000
# Behind the head of each answer and well before its end.
MIDDLE = 40_000


@pytest.fixture(autouse=True)
def no_proxies_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def proxy(web: WebServer) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", web.port, http=True) as between:
        yield between


@dataclasses.dataclass
class Network:
    """A web server, the store that reads from it, and the proxy between them."""

    web: WebServer
    proxy: FaultProxy
    store: Any

    def open(self, path: str, *range_: int) -> tuple[Any, int]:
        uri = f"http://{self.proxy.address}{path}"
        result: tuple[Any, int] = self.store.get(get_location_from_uri(uri), *range_)
        return result

    def read(self, path: str, *range_: int) -> bytes:
        chunks, size = self.open(path, *range_)
        data = b"".join(chunks)
        assert len(data) == size
        return data

    # The operations whose requests fail.

    def whole(self) -> bytes:
        """Two requests: a redirect, and the image."""
        return self.read("/moved")

    def range(self) -> bytes:
        """Two requests, as above, for a part of the image."""
        return self.read("/moved", FIRST, LENGTH)

    def resumed(self) -> bytes:
        """Two requests: the answer to the first one ends early."""
        file = File(IMAGE)
        self.web.serve("/interrupted", in_turn(cutting(file, 2 * MIDDLE), file))
        return self.read("/interrupted")

    def size(self, path: str = "/headless") -> int:
        """Two requests: HEAD is refused."""
        uri = f"http://{self.proxy.address}{path}"
        size: int = self.store.get_size(get_location_from_uri(uri))
        return size


EXPECTED = {"whole": IMAGE, "range": IMAGE[FIRST : FIRST + LENGTH], "resumed": IMAGE}
DOWNLOADS = list(EXPECTED)


def headless(request: Request) -> Answer:
    return Answer(405) if request.method == "HEAD" else File(IMAGE)(request)


@pytest.fixture
def network(web: WebServer, proxy: FaultProxy, create_single: Callable[..., int]) -> Network:
    web.serve("/image", File(IMAGE))
    web.serve("/moved", redirect("/image"))
    web.serve("/headless", headless)
    options = {
        "http_store_retry_timeout": 2,
        "http_store_connect_timeout": 5,
        "http_store_read_timeout": 1,
        "https_insecure": False,
    }
    assert create_single(["http"], options) == 1
    store: Any = glance_store.get_store_from_scheme("http")
    store.READ_CHUNKSIZE = 10_000
    return Network(web, proxy, store)


def attempt(network: Network, download: str) -> exceptions.GlanceStoreException | None:
    """Download; return the error if there is one, and make sure that nothing is wrong silently."""
    error: exceptions.GlanceStoreException | None
    try:
        data = getattr(network, download)()
    except exceptions.GlanceStoreException as exc:
        error = exc
    else:
        assert data == EXPECTED[download]
        error = None
    # At most the one that waits to be used again.
    assert eventually(lambda: network.proxy.open <= 1)
    return error


def is_first(network: Network, number: int, download: str) -> bool:
    """Tell whether a request opens a download, and is none that resumes it."""
    return not (download == "resumed" and number == 2)


@pytest.mark.parametrize("download", DOWNLOADS)
@pytest.mark.parametrize("status", [500, 503])
def test_each_request_is_answered_with_an_error_once(
    network: Network, download: str, status: int
) -> None:
    for number in network.proxy.each_request(getattr(network, download)):
        network.proxy.fail_request(number, status)
        assert attempt(network, download) is None


@pytest.mark.parametrize("download", DOWNLOADS)
@pytest.mark.parametrize("after", [None, 0, MIDDLE])
@pytest.mark.parametrize("how", [How.RESET, How.TRUNCATE])
def test_each_request_breaks_off_once(
    network: Network, download: str, how: How, after: int | None
) -> None:
    for number in network.proxy.each_request(getattr(network, download)):
        network.proxy.fail_request(number, how=how, after=after)
        assert attempt(network, download) is None


def head_size(network: Network) -> int:
    """Return the bytes of the head of the answer with the image."""
    before = network.proxy.bytes_down
    assert network.read("/image") == IMAGE
    return network.proxy.bytes_down - before - len(IMAGE)


@pytest.mark.parametrize(
    "how",
    [
        How.RESET,
        How.TRUNCATE,
    ],
)
@pytest.mark.parametrize("operation", ["read", "size"])
def test_the_head_of_the_answer_breaks_off_at_each_byte(
    network: Network, how: How, operation: str
) -> None:
    for after in range(1, head_size(network)):
        network.proxy.clear()
        network.proxy.fail_request(1, how=how, after=after)
        # It cannot be told from an idle connection that was closed: asked again at once.
        if operation == "read":
            assert network.read("/image") == IMAGE
        else:
            assert network.size("/image") == len(IMAGE)
        assert len(network.proxy.requests) == 2
        assert eventually(lambda: network.proxy.open <= 1)


@pytest.mark.parametrize("download", DOWNLOADS)
@pytest.mark.parametrize("after", [None, MIDDLE])
def test_each_request_falls_silent_once(network: Network, download: str, after: int | None) -> None:
    for number in network.proxy.each_request(getattr(network, download)):
        network.proxy.fail_request(number, how=How.SILENCE, after=after)
        error = attempt(network, download)
        if after is None and is_first(network, number, download):
            assert isinstance(error, exceptions.RemoteServiceUnavailable)
            assert "http_store_read_timeout" in str(error)
        else:
            # Resumed; the redirect is shorter than that, and comes in full.
            assert error is None


FOR_GOOD: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"status": 500}, exceptions.BadStoreUri),
    ({"status": 503}, exceptions.BadStoreUri),
    ({"how": How.RESET}, exceptions.RemoteServiceUnavailable),
    ({"how": How.RESET, "after": 0}, exceptions.RemoteServiceUnavailable),
    ({"how": How.TRUNCATE}, exceptions.RemoteServiceUnavailable),
    ({"how": How.TRUNCATE, "after": 5}, exceptions.RemoteServiceUnavailable),
    ({"how": How.SILENCE}, exceptions.RemoteServiceUnavailable),
]


@pytest.mark.parametrize("download", DOWNLOADS)
@pytest.mark.parametrize(("fault", "expected"), FOR_GOOD)
def test_each_request_fails_for_good(
    network: Network, download: str, fault: dict[str, Any], expected: type[Exception]
) -> None:
    for number in network.proxy.each_request(getattr(network, download)):
        network.proxy.fail_request(number, times=None, everything=True, **fault)
        error = attempt(network, download)
        if is_first(network, number, download):
            assert isinstance(error, expected)
        else:
            # The image was there: this is the server's fault, and not the location's.
            assert isinstance(error, exceptions.RemoteServiceUnavailable)
        # Those before; then a request and four tries more, after pauses of 0.2, 0.4 and 0.8 s and
        # at the end of the two seconds, each on a second connection as well.
        assert len(network.proxy.requests) <= number - 1 + 10
        network.proxy.clear()
        assert attempt(network, download) is None


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"how": How.RESET},
        {"how": How.TRUNCATE, "after": 0},
        {"how": How.SILENCE},
    ],
)
@pytest.mark.parametrize("times", [1, None])
def test_each_request_for_the_size_fails(
    network: Network, fault: dict[str, Any], times: int | None
) -> None:
    for number in network.proxy.each_request(network.size):
        network.proxy.fail_request(number, times=times, everything=times is None, **fault)
        # GET, the second, may be answered where HEAD is not.
        silent = fault.get("how") is How.SILENCE and number > 1
        if times == 1 and not silent:
            assert network.size() == len(IMAGE)
        else:
            with pytest.raises(exceptions.BadStoreUri):
                network.size()
        assert eventually(lambda: network.proxy.open <= 1)


@pytest.mark.parametrize("fault", ["reset_after", "truncate_after"])
def test_every_connection_is_cut(network: Network, fault: str) -> None:
    # Each gets further than the one before: retries are counted anew when there is progress.
    network.proxy.inject(**{fault: 60_000})
    assert network.read("/image") == IMAGE
    assert network.proxy.accepted >= 4
    network.proxy.inject(**{fault: 0})
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        network.read("/image")
    assert eventually(lambda: network.proxy.open == 0)


def test_the_network_is_lost_half_way(network: Network) -> None:
    # Slow enough that the rest is still on its way.
    network.proxy.inject(bandwidth=100_000)
    chunks, size = network.open("/image")
    received = [next(chunks)]
    network.proxy.inject(black_hole=True)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="http_store_read_timeout"):
        received.extend(chunks)
    assert size == len(IMAGE)
    assert IMAGE.startswith(b"".join(received))
    assert list(chunks) == []
    assert eventually(lambda: network.proxy.open == 0)


def test_the_server_goes_down_half_way_and_comes_back(network: Network) -> None:
    network.proxy.inject(bandwidth=100_000)
    chunks, _size = network.open("/image", 0, LENGTH)
    first = next(chunks)
    network.proxy.inject(refuse=True, reset_after=0)
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        network.read("/image")
    with pytest.raises(exceptions.BadStoreUri):
        network.size()
    network.proxy.clear()
    assert first + b"".join(chunks) == IMAGE[:LENGTH]


def test_nobody_answers(network: Network) -> None:
    network.proxy.inject(black_hole=True)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="http_store_read_timeout"):
        network.read("/image")
    with pytest.raises(exceptions.BadStoreUri, match="http_store_read_timeout"):
        network.size()
    assert eventually(lambda: network.proxy.open == 0)


def test_a_slow_network_is_only_slow(network: Network) -> None:
    network.proxy.inject(latency=0.02, bandwidth=1_000_000)
    assert network.whole() == EXPECTED["whole"]
    assert network.range() == EXPECTED["range"]
    assert network.size() == len(IMAGE)
