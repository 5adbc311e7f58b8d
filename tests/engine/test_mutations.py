# SPDX-License-Identifier: Apache-2.0
"""The checks of an upload, checked: each of them fails on an engine that is broken on purpose."""

from __future__ import annotations

import types
from typing import Any, NamedTuple

import pytest

from glance_store.transfer import lanes
from glance_store.transfer import upload as engine
from glance_store.transfer.load import Load

from . import checks

MODULES = (lanes, engine)


class Mutation(NamedTuple):
    """A defect: the text that it takes the place of, and the check that finds it."""

    name: str
    text: str
    replacement: str
    caught_by: str


MUTATIONS = [
    Mutation(
        "skips a digest",
        "        for consumer in digests.consumers:\n            lanes.start(",
        "        for consumer in digests.consumers[1:]:\n            lanes.start(",
        "contents",
    ),
    Mutation(
        "skips a digest of a small image",
        "        for consumer in digests.consumers:\n            consumer.update(",
        "        for consumer in digests.consumers[:1]:\n            consumer.update(",
        "contents",
    ),
    Mutation(
        "drops the last block",
        "        if not block:\n            return\n        lanes.put(",
        "        if len(block) < source.block_size:\n            return\n        lanes.put(",
        "contents",
    ),
    Mutation(
        "does not abort",
        "        return result\n    except BaseException:\n        _abort(writer)\n        raise\n",
        "        return result\n    except BaseException:\n        raise\n",
        "source errors",
    ),
    Mutation(
        "publishes early",
        "        lanes.finish()\n    except",
        "        writer.commit(source.total)\n        lanes.finish()\n"
        "        writer.commit = lambda _size: None\n    except",
        "commit after writes",
    ),
    Mutation(
        "ignores the declared size",
        "        self._expected = expected\n",
        "        self._expected = 0\n",
        "declared sizes",
    ),
    Mutation(
        "swallows the source's error",
        "            raise lane_error from exc\n        raise\n",
        "            raise lane_error from exc\n        return source.total\n",
        "source errors",
    ),
    Mutation(
        "swallows the backend's error",
        "                    if self.error is None:\n                        self.error = exc\n",
        "                    self.error = None\n",
        "write errors",
    ),
]


def engine_sources() -> list[str]:
    """Return the texts of the modules."""
    texts = []
    for module in MODULES:
        with open(str(module.__file__), encoding="utf-8") as file:
            texts.append(file.read())
    return texts


def load(sources: list[str]) -> checks.Upload:
    """Return the function `upload` of a copy of the modules."""
    # A broken engine may count itself as at work for ever; that is its own affair.
    scope: dict[str, Any] = {"LOAD": Load()}
    for source, module in zip(sources, MODULES, strict=True):
        copy = types.ModuleType(f"{module.__name__}_copy")
        exec(compile(source, f"<copy of {module.__name__}>", "exec"), copy.__dict__)
        copy.__dict__.update(scope)
        scope["Lanes"] = copy.Lanes
    function: checks.Upload = copy.upload
    return function


def failing(upload: checks.Upload) -> set[str]:
    """Return the names of the checks that an engine does not pass."""
    names = set()
    for name, check in checks.ALL.items():
        try:
            check(upload)
        except (AssertionError, pytest.fail.Exception):
            names.add(name)
    return names


def test_the_engine_passes() -> None:
    assert failing(engine.upload) == set()


def test_a_copy_of_the_engine_passes() -> None:
    """So what fails below fails for its mutation."""
    assert failing(load(engine_sources())) == set()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_is_caught(mutation: Mutation) -> None:
    sources = engine_sources()
    found = sum(source.count(mutation.text) for source in sources)
    assert found == 1, "the engine has changed: adapt the mutation"
    mutants = [source.replace(mutation.text, mutation.replacement) for source in sources]
    assert mutation.caught_by in failing(load(mutants))


def test_every_check_catches_something() -> None:
    assert {mutation.caught_by for mutation in MUTATIONS} == set(checks.ALL)
