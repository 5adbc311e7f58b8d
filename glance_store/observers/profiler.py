# SPDX-License-Identifier: Apache-2.0
"""Store operations as spans of OSProfiler, which the extra ``osprofiler`` installs."""

from __future__ import annotations

from typing import Any

import osprofiler.profiler

from glance_store.observers import ABANDONED, OK, Observer, Operation


class ProfilerObserver(Observer):
    """Adds a span to the active trace of the calling thread, if there is one.

    A download ends after the spans of its request, and maybe on another thread. So each operation
    has its own profiler, below the span that is active when it begins.
    """

    def __init__(self) -> None:
        self._spans: dict[Operation, Any] = {}

    def begin(self, operation: Operation) -> None:
        """Begin a span if a trace is active."""
        active = osprofiler.profiler.get()
        if active is None:
            return
        span = type(active)(
            active.hmac_key, base_id=active.get_base_id(), parent_id=active.get_id()
        )
        info = {"store": operation.store, "driver": operation.driver, "operation": operation.name}
        span.start(f"glance_store_{operation.name}", info=info)
        self._spans[operation] = span

    def end(self, operation: Operation) -> None:
        """End the span."""
        span = self._spans.pop(operation, None)
        if span is None:
            return
        info: dict[str, Any] = {"bytes": operation.bytes, "outcome": operation.outcome}
        if operation.outcome not in (OK, ABANDONED):
            # OSProfiler's reports recognise an error by this key.
            info["etype"] = operation.outcome
        span.stop(info=info)
