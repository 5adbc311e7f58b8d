# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: additional configurations of a driver run only the tests they can affect.

Each test of the kit declares the aspects it depends on; a test class declares with `Kit.variant`
which aspects its configuration changes. Tests that depend on none of these are left out, unless
pytest runs with ``--all``. Without this plugin, every configuration runs all tests. Load it with
``-p glance_store.testing.selection``, or from ``pytest_plugins`` in the top-level ``conftest.py``.

``pytest --collect-only -q`` then ends with a table of the tests of each class, and the distinct
checks of each folder, which count the same test on several configurations once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import pytest

from glance_store.testing.kit import Kit, touched

_CHOSEN = pytest.StashKey[list[pytest.Function]]()
_LEFT_OUT = pytest.StashKey[list[pytest.Function]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--all``."""
    parser.getgroup("glance_store", "conformance kit of glance_store").addoption(
        "--all",
        action="store_true",
        dest="all_configurations",
        help="run the whole kit on additional configurations of a driver too",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that a configuration cannot affect."""
    everything = config.getoption("all_configurations")
    left_out = [] if everything else [item for item in _of_the_kit(items) if not _is_chosen(item)]
    if left_out:
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=left_out)
    config.stash[_CHOSEN] = list(_of_the_kit(items))
    config.stash[_LEFT_OUT] = left_out


def pytest_report_collectionfinish(config: pytest.Config) -> str | list[str]:
    """Say how many tests were left out."""
    left_out = config.stash.get(_LEFT_OUT, [])
    if not left_out:
        return []
    return f"conformance kit: {len(left_out)} tests left out that a variant cannot affect (--all)"


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show the table if tests are only collected."""
    if config.option.collectonly and config.stash.get(_CHOSEN, []):
        for line in _table(config.stash[_CHOSEN], config.stash[_LEFT_OUT]):
            terminalreporter.write_line(line)


def _of_the_kit(items: Iterable[pytest.Item]) -> Iterator[pytest.Function]:
    for item in items:
        if isinstance(item, pytest.Function) and issubclass(item.cls or object, Kit):
            yield item


def _is_chosen(item: pytest.Function) -> bool:
    """Tell whether to run a test; one that is not of the kit always runs."""
    aspects = touched(item.function)
    variant = item.cls.variant
    return variant is None or aspects is None or not aspects.isdisjoint(variant)


def _table(chosen: list[pytest.Function], left_out: list[pytest.Function]) -> Iterator[str]:
    """Yield the lines of the table of tests."""
    tests: defaultdict[str, Counter[type[Kit]]] = defaultdict(Counter)
    checks: defaultdict[str, set[str]] = defaultdict(set)
    for item in chosen:
        tests[_folder(item)][item.cls] += 1
        # Not item.name: its ids differ between classes with the same values.
        values = item.callspec.params if hasattr(item, "callspec") else {}
        checks[_folder(item)].add(f"{item.originalname} {sorted(values.items())}")
    missing = Counter((_folder(item), item.cls) for item in left_out)
    for folder in tests:
        yield f"conformance kit: {folder}"
        for kit, count in tests[folder].items():
            what = f" of {count + missing[folder, kit]}: {', '.join(kit.variant or ())}"
            yield f"{count:6} {kit.__name__}{what if kit.variant is not None else ''}"
        yield f"{len(checks[folder]):6} distinct checks"
    total = sum(len(found) for found in checks.values())
    yield f"conformance kit: {len(chosen)} tests, {total} distinct checks"


def _folder(item: pytest.Function) -> str:
    """Return the folder of a test; the configurations of one driver share it."""
    return item.nodeid.partition("::")[0].rpartition("/")[0] or "."
