# SPDX-License-Identifier: Apache-2.0
"""Which tests one of several processes runs together, and which groups begin first.

Tests of a group share what is expensive to make: a Glance with stores of one kind, a server behind
a proxy. What takes longest begins first, so that no process is alone with it at the end.
The plugin also shuffles tests, to show that none needs another before it.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

# Groups whose names begin so start first: one of each in this order, then the second of each. Those
# of one kind would all wait for the same server to be installed.
FIRST = (
    "tests/drivers/cinder",
    "glance-cinder",
    "tests/drivers/swift",
    "glance-",
    "tests/drivers/s3",
    "tests/drivers/rbd",
    "tests/drivers/file/test_deadlines.py",
    "tests/glance",
    "tests/services",
)
# Each run of the kit on real servers is cut into so many groups.
KIT_GROUPS = 3
_ON_SERVERS = re.compile(r"tests/drivers/(cinder|rbd|s3|swift)/test_kit\.py::(\w+)::(\w+)")
_SCENE = re.compile(r"tests/glance/.*\[(?:.*-)?(cinder|file|rbd|s3|swift)(?:-.*)?\]$")
_ON_BACKEND = re.compile(r"tests/cli/test_backends\.py::.*\[\w+\]$")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run shuffle its tests."""
    parser.addoption(
        "--shuffle", type=int, metavar="SEED", help="run the tests in another order for each number"
    )


def group_of(test: str) -> str:
    """Return the name of the group of a test, given by its id."""
    if scene := _SCENE.match(test):
        return f"glance-{scene[1]}"
    if kit := _ON_SERVERS.match(test):
        # All parameters of a function stay together.
        driver, name, function = kit.groups()
        return f"tests/drivers/{driver}::{name}-{zlib.crc32(function.encode()) % KIT_GROUPS}"
    if _ON_BACKEND.match(test):
        return test
    path, _separator, rest = test.partition("::")
    name, nested, _function = rest.partition("[")[0].partition("::")
    return f"{path}::{name}" if nested else path


def _turns(groups: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return by what groups are sorted."""
    turns: dict[str, tuple[int, int]] = {}
    seen: Counter[int] = Counter()
    for group in dict.fromkeys(groups):
        kinds = (kind for kind, prefix in enumerate(FIRST) if group.startswith(prefix))
        kind = next(kinds, len(FIRST))
        turns[group] = (len(groups), 0) if kind == len(FIRST) else (seen[kind], kind)
        seen[kind] += 1
    return turns


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, None, None]:
    """Put the tests in order."""
    seed = config.getoption("shuffle")
    if seed is not None:
        random.Random(seed).shuffle(items)
    yield
    # pytest has brought together what shares fixtures.
    if hasattr(config, "workerinput"):
        turns = _turns([group_of(item.nodeid) for item in items])
        items.sort(key=lambda item: turns[group_of(item.nodeid)])


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {name: _encodable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_encodable, value))
    return value


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let reports reach the other process: some logs have ids that cannot be encoded."""
    return _encodable((yield))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out whole groups, in the order in which the tests are."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

        def _reschedule(self, node: Any) -> None:
            """Give a process two tests at least: it begins one when it knows the next."""
            super()._reschedule(node)
            if self.workqueue and self._pending_of(self.assigned_work[node]) < 2:
                super()._reschedule(node)

        def remove_node(self, node: Any) -> str | None:
            """Hand out what a lost process had left, but not the test that it was lost in.

            xdist 3.8 hands out all that the process ever had. Groups without a test to run then use
            up the turns in which the others get more, and the run waits for ever.
            """
            had = self.assigned_work.pop(node)
            units = {
                group: {test: False for test, done in unit.items() if not done}
                for group, unit in had.items()
            }
            crashed = next((test for unit in units.values() for test in unit), None)
            for unit in units.values():
                unit.pop(crashed, None)
            self.workqueue.update({group: unit for group, unit in units.items() if unit})
            for other in self.assigned_work:
                if other in self.registered_collections:
                    self._reschedule(other)
            return crashed

    config.option.loadscopereorder = False
    return Groups(config, log)
