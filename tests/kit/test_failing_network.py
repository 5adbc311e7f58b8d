# SPDX-License-Identifier: Apache-2.0
"""The kit's tests of a failing network, on a backend in memory whose requests can be failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from glance_store import exceptions
from tests.kit.examples import load

memory_store = load("memory_store")
# The module: the class itself would be collected here once more.
memory_kit = load("test_memory_store")


class FailingShelf(memory_store.Shelf):  # type: ignore[name-defined,misc]
    """A shelf and the network to it; `finish` says whether a failed request is carried out."""

    def __init__(self, finish: bool = False) -> None:
        super().__init__()
        self._finish = finish
        self._failing: dict[int, int | None] = {}
        self._for_good: str | None = None
        self.requests = 0
        # Faults that were set for a request that never came.
        self.idle = 0

    def each_request(self, operation: Callable[[], object]) -> Iterator[int]:
        self.clear()
        operation()
        count = self.requests
        assert count
        for number in range(1, count + 1):
            self.clear()
            yield number

    def fail_request(self, number: int, status: int, *, times: int | None) -> None:
        self._failing[number] = times

    def clear(self) -> None:
        self.idle += sum(number > self.requests for number in self._failing)
        self._failing.clear()
        self._for_good = None
        self.requests = 0

    def _request(self, name: str, *args: Any) -> Any:
        self.requests += 1
        fails = self._for_good == name
        if self.requests in self._failing:
            fails = True
            if self._failing[self.requests] is None:
                self._for_good = name
        if fails:
            if self._finish:
                getattr(super(), name)(*args)
            raise exceptions.RemoteServiceUnavailable(f"{name} has failed")
        return getattr(super(), name)(*args)

    def put(self, *args: Any) -> None:
        self._request("put", *args)

    def find(self, *args: Any) -> Any:
        return self._request("find", *args)

    def remove(self, *args: Any) -> None:
        self._request("remove", *args)


class TestFailingNetwork(memory_kit.TestMemoryStore):  # type: ignore[name-defined,misc]
    variant = ("wire",)

    @pytest.fixture
    def backend(self) -> Iterator[None]:
        """No round of a test is run for nothing: each fault strikes."""
        self.shelf = self.proxy = FailingShelf()
        yield
        self.shelf.clear()
        assert not self.shelf.idle


class TestNetworkThatLosesAnswers(memory_kit.TestMemoryStore):  # type: ignore[name-defined,misc]
    """The memory driver does not look whether a failed request was carried out: the kit tells."""

    variant = ("wire",)

    @pytest.fixture
    def backend(self) -> None:
        self.shelf = self.proxy = FailingShelf(finish=True)

    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.parametrize("times", [1, None])
    def test_each_request_of_an_upload_fails(self, known: bool, times: int | None) -> None:
        with pytest.raises(AssertionError, match="of an upload leaves something"):
            super().test_each_request_of_an_upload_fails(known, times)

    def test_each_request_of_a_deletion_fails(self) -> None:
        with pytest.raises(exceptions.NotFound):
            super().test_each_request_of_a_deletion_fails()
