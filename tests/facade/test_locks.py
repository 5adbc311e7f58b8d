# SPDX-License-Identifier: Apache-2.0
"""Locks by name."""

from __future__ import annotations

import os
import threading

from glance_store.common.locks import CREATING, KeyedLocks

PATIENCE = 30.0


def test_a_lock_ends_with_the_last_who_wants_it() -> None:
    locks = KeyedLocks()
    with locks.holding(("bucket", "key")), locks.holding("another"):
        assert len(locks) == 2
    assert len(locks) == 0


def test_one_at_a_time_by_name() -> None:
    locks = KeyedLocks()
    order: list[str] = []
    begun = threading.Event()

    def second() -> None:
        begun.set()
        with locks.holding("name"):
            order.append("second")

    with locks.holding("name"):
        thread = threading.Thread(target=second)
        thread.start()
        assert begun.wait(PATIENCE)
        with locks.holding("other"):
            order.append("first")
    thread.join(PATIENCE)
    assert order == ["first", "second"]
    assert len(locks) == 0


def test_an_error_gives_the_lock_back() -> None:
    locks = KeyedLocks()
    try:
        with locks.holding("name"):
            raise ValueError
    except ValueError:
        pass
    with locks.holding("name"):
        assert len(locks) == 1


def test_a_forked_child_holds_nothing() -> None:
    with CREATING.holding("name"):
        child = os.fork()
        if not child:
            # A lock that had survived would hang here, and the test with it.
            with CREATING.holding("name"):
                os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
