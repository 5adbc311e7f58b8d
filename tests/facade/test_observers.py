# SPDX-License-Identifier: Apache-2.0
"""Observers hear of each operation of each store, and disturb none."""

from __future__ import annotations

import gc
import io
import logging
import os
import subprocess
import sys
import threading
import time

import osprofiler.notifier
import osprofiler.profiler
import prometheus_client
import prometheus_client.multiprocess
import pytest

import glance_store
from glance_store import exceptions, loading, observers, store_options
from glance_store.observers.profiler import ProfilerObserver
from glance_store.observers.prometheus import PrometheusObserver

DATA = bytes(range(256)) * 1000


class Recorder(observers.Observer):
    """Keeps what it is told."""

    def __init__(self):
        self.begun = []
        self.ended = []
        self.told = threading.Event()

    def begin(self, operation):
        assert not operation.outcome
        self.begun.append(operation)

    def end(self, operation):
        self.ended.append(operation)
        self.told.set()

    def facts(self):
        assert self.begun == self.ended
        return [(one.name, one.bytes, one.outcome) for one in self.ended]


@pytest.fixture
def watch():
    """Register observers for the time of a test."""
    registered = []

    def register(observer):
        observers.register(observer)
        registered.append(observer)
        return observer

    yield register
    for observer in registered:
        observers.unregister(observer)


@pytest.fixture
def recorder(watch):
    return watch(Recorder())


@pytest.fixture
def uri(create_multi, conf):
    """The location of an image in the store fast."""
    create_multi({"fast": "file"})
    return glance_store.add_with_multihash(
        conf, "image", io.BytesIO(DATA), len(DATA), "fast", "sha256"
    )[0]


def test_each_operation_is_told(uri, conf, watch):
    recorder = watch(Recorder())
    watch(recorder)
    begun = time.monotonic()
    glance_store.add(conf, "other", io.BytesIO(DATA), 0, "fast")
    data, size = glance_store.get(uri, "fast")
    assert (b"".join(data), size) == (DATA, len(DATA))
    part, _size = glance_store.get(uri, "fast", offset=5, chunk_size=10)
    assert next(part) == DATA[5:15]
    assert glance_store.get_size_from_uri_and_backend(uri, "fast") == len(DATA)
    glance_store.delete(uri, "fast")
    limit = time.monotonic() - begun
    assert recorder.facts() == [
        ("add", len(DATA), "ok"),
        ("get", len(DATA), "ok"),
        ("get", 10, "ok"),
        ("get_size", 0, "ok"),
        ("delete", 0, "ok"),
    ]
    assert {(one.store, one.driver) for one in recorder.ended} == {("fast", "file")}
    assert all(0 < one.seconds <= limit for one in recorder.ended)


def test_failures_are_told_by_their_exceptions(uri, conf, recorder):
    with pytest.raises(exceptions.Duplicate):
        glance_store.add(conf, "image", io.BytesIO(DATA), 0, "fast")
    with pytest.raises(exceptions.NotFound):
        glance_store.get(f"{uri}-missing", "fast")
    with pytest.raises(exceptions.Invalid):
        glance_store.add(conf, "third", io.BytesIO(DATA), 7, "fast")
    closed, _size = glance_store.get(uri, "fast")
    closed.close()
    short, _size = glance_store.get(uri, "fast")
    os.truncate(uri.removeprefix("file://"), 10)
    with pytest.raises(exceptions.TruncatedImage):
        list(short)
    assert recorder.facts() == [
        ("add", 0, "Duplicate"),
        ("get", 0, "NotFound"),
        ("add", 0, "Invalid"),
        ("get", 0, "abandoned"),
        ("get", 0, "TruncatedImage"),
    ]


def test_a_download_that_is_collected_is_told_by_a_thread(uri, recorder):
    """The collector may run where an observer's lock is held."""
    threads = []
    recorder.end = lambda operation: (
        threads.append(threading.current_thread()),
        Recorder.end(recorder, operation),
    )
    data, _size = glance_store.get(uri, "fast")
    del data
    gc.collect()
    assert recorder.told.wait(30), "the end of a collected download is told"
    assert recorder.facts() == [("get", 0, "abandoned")]
    assert threads != [threading.current_thread()]


def test_an_observer_that_fails_is_logged_once(uri, conf, watch, caplog):
    class Broken(observers.Observer):
        def begin(self, operation):
            raise ZeroDivisionError

        end = begin

    watch(Broken())
    after = watch(Recorder())
    caplog.set_level(logging.ERROR)
    assert glance_store.get_size_from_uri_and_backend(uri, "fast") == len(DATA)
    assert b"".join(glance_store.get(uri, "fast")[0]) == DATA
    (record,) = caplog.records
    assert "Broken" in record.getMessage()
    assert [name for name, _bytes, _outcome in after.facts()] == ["get_size", "get"]


def test_drivers_from_outside_are_observed_as_they_are(outside, create_multi, conf, recorder):
    """What such a driver returns keeps its type, and what it calls of its base counts once."""

    class Nested(outside.Store):
        def get_size(self, location, context=None):
            return super().get_size(location, context)

    create_multi({"one": "memory"})
    uri = glance_store.add(conf, "image", io.BytesIO(DATA), 0, "one")[0]
    data, _size = glance_store.get(uri, "one")
    assert isinstance(data, outside.Chunks)
    store = Nested(conf, "one")
    store.configure()
    assert store.get_size(
        glance_store.location.get_location_from_uri_and_backend(uri, "one", conf=conf)
    ) == len(DATA)
    assert recorder.facts() == [
        ("add", len(DATA), "ok"),
        ("get", len(DATA), "ok"),
        ("get_size", 0, "ok"),
    ]
    assert [one.driver for one in recorder.ended[:2]] == ["memory", "memory"]


def test_single_store_mode_has_the_name_of_the_driver(create_single, recorder):
    create_single(["file"])
    with pytest.raises(exceptions.NotFound):
        glance_store.get_size_from_backend("file:///no/such/image")
    (operation,) = recorder.ended
    assert (operation.store, operation.driver) == ("file", "file")


def test_one_that_is_unregistered_hears_the_end_of_what_it_heard_begin(uri, recorder):
    data, _size = glance_store.get(uri, "fast")
    observers.unregister(recorder)
    glance_store.get_size_from_uri_and_backend(uri, "fast")
    assert b"".join(data) == DATA
    assert recorder.facts() == [("get", len(DATA), "ok")]


# -- the option


def test_the_option_enables_observers(create_multi, conf, monkeypatch, caplog):
    conf.register_opt(store_options.OBSERVERS_OPT, group="glance_store")
    monkeypatch.setattr(loading, "_OBSERVERS", {})
    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    name = ("glance_store", "store_observers")
    try:
        create_multi({"fast": "file"}, options={name: ["prometheus", "osprofiler", "nobody"]})
        enabled = {type(one.observer) for one in observers._OBSERVERS}
        assert enabled == {PrometheusObserver, ProfilerObserver}
        errors = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
        assert len(errors) == 1
        assert "store_observers: nobody cannot be loaded" in errors[0]
        # Once more, as a service that reloads its configuration does.
        create_multi({"fast": "file"}, options={name: ["prometheus"]})
        (one,) = observers._OBSERVERS
        assert type(one.observer) is PrometheusObserver
    finally:
        loading.enable_observers([])
    assert not observers._OBSERVERS


# -- prometheus_client


def test_metrics(uri, watch):
    registry = prometheus_client.CollectorRegistry()
    watch(PrometheusObserver(registry))
    for _time in range(3):
        assert b"".join(glance_store.get(uri, "fast")[0]) == DATA
    with pytest.raises(exceptions.NotFound):
        glance_store.delete(f"{uri}-missing", "fast")
    labels = {"store": "fast", "driver": "file"}

    def value(name, **more):
        return registry.get_sample_value(f"glance_store_{name}", {**labels, **more})

    assert value("operations_total", operation="get", outcome="ok") == 3
    assert value("operations_total", operation="delete", outcome="NotFound") == 1
    assert value("operation_bytes_total", operation="get") == 3 * len(DATA)
    assert value("operation_seconds_count", operation="get") == 3


PROCESSES = """
import os, sys
from oslo_config import cfg
import glance_store
from glance_store import observers
from glance_store.observers.prometheus import PrometheusObserver

observers.register(PrometheusObserver())
conf = cfg.ConfigOpts()
conf.register_opt(cfg.DictOpt("enabled_backends"))
conf.set_override("enabled_backends", {"fast": "file"})
glance_store.register_store_opts(conf)
conf.set_override("filesystem_store_datadir", sys.argv[1], group="fast")
glance_store.create_multi_stores(conf)
children = []
for number in range(2):
    if not (child := os.fork()):
        glance_store.add(conf, f"image-{number}", [b"x" * 1000], 0, "fast")
        os._exit(0)
    children.append(child)
assert not any(os.waitpid(child, 0)[1] for child in children)
glance_store.add(conf, "image", [b"x" * 1000], 0, "fast")
"""


def test_metrics_of_several_processes_add_up(tmp_path):
    figures = tmp_path / "figures"
    figures.mkdir()
    subprocess.run(
        [sys.executable, "-c", PROCESSES, str(tmp_path / "images")],
        check=True,
        env={"PROMETHEUS_MULTIPROC_DIR": str(figures), "PYTHONPATH": ":".join(sys.path)},
    )
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.multiprocess.MultiProcessCollector(registry, str(figures))
    labels = {"store": "fast", "driver": "file", "operation": "add"}
    assert registry.get_sample_value("glance_store_operation_bytes_total", labels) == 3000
    assert registry.get_sample_value("glance_store_operation_seconds_count", labels) == 3


# -- osprofiler


@pytest.fixture
def trace(monkeypatch):
    """An active trace, and what it notifies."""
    notified = []
    before = osprofiler.notifier.get()
    osprofiler.notifier.set(notified.append)
    yield osprofiler.profiler.init("key"), notified
    osprofiler.notifier.set(before)
    osprofiler.profiler.clean()


def test_spans_below_the_active_one(uri, watch, trace):
    active, notified = trace
    watch(ProfilerObserver())
    active.start("wsgi")
    parent = active.get_id()
    data, _size = glance_store.get(uri, "fast")
    # The body of an answer is sent after the span of its request has ended, in any thread.
    active.stop()
    thread = threading.Thread(target=lambda: b"".join(data))
    thread.start()
    thread.join()
    with pytest.raises(exceptions.NotFound):
        glance_store.delete(f"{uri}-missing", "fast")
    names = [one["name"] for one in notified]
    assert names == [
        "wsgi-start",
        "glance_store_get-start",
        "wsgi-stop",
        "glance_store_get-stop",
        "glance_store_delete-start",
        "glance_store_delete-stop",
    ]
    start, stop = notified[1], notified[3]
    assert start["parent_id"] == stop["parent_id"] == parent
    assert start["trace_id"] == stop["trace_id"] != parent
    assert start["info"]["store"] == "fast"
    assert stop["info"]["bytes"] == len(DATA)
    assert notified[5]["info"]["etype"] == "NotFound"


def test_without_a_trace_there_are_no_spans(uri, watch, trace):
    _active, notified = trace
    osprofiler.profiler.clean()
    watch(ProfilerObserver())
    glance_store.get_size_from_uri_and_backend(uri, "fast")
    assert not notified
