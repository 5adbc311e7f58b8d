# SPDX-License-Identifier: Apache-2.0
"""Store operations as metrics of prometheus_client, which the extra ``prometheus`` installs."""

from __future__ import annotations

from typing import Any

import prometheus_client

from glance_store.observers import Observer, Operation

# From looking up a size to transferring an image of a terabyte.
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)


class PrometheusObserver(Observer):
    """Counts operations, bytes and seconds by store.

    It uses only counters and a histogram, because these add up across processes: with
    ``PROMETHEUS_MULTIPROC_DIR`` in the environment of the service, each process writes its own, and
    `prometheus_client.multiprocess.MultiProcessCollector` reads them all.

    :param registry: where to register the metrics; None for the default registry
    """

    def __init__(self, registry: Any = None) -> None:
        target = prometheus_client.REGISTRY if registry is None else registry
        labels = ["store", "driver", "operation"]
        self._operations = prometheus_client.Counter(
            "glance_store_operations",
            "Completed store operations.",
            [*labels, "outcome"],
            registry=target,
        )
        self._bytes = prometheus_client.Counter(
            "glance_store_operation_bytes",
            "Image bytes stored (add) or delivered (get).",
            labels,
            registry=target,
        )
        self._seconds = prometheus_client.Histogram(
            "glance_store_operation_seconds",
            "Duration of store operations in seconds.",
            labels,
            registry=target,
            buckets=_SECONDS,
        )

    def end(self, operation: Operation) -> None:
        """Count an operation."""
        labels = (operation.store, operation.driver, operation.name)
        self._operations.labels(*labels, operation.outcome).inc()
        self._bytes.labels(*labels).inc(operation.bytes)
        self._seconds.labels(*labels).observe(operation.seconds)
