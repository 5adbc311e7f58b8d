# SPDX-License-Identifier: Apache-2.0
"""The health check of oslo.middleware tells how the stores are, and waits for none twice."""

from __future__ import annotations

import json
import os
import threading

import pytest
import webob
from oslo_middleware import healthcheck

import glance_store
from glance_store import location
from glance_store._drivers import filesystem
from tests.waiting import until


@pytest.fixture
def check(process_conf):
    """Make the real application, which asks the stores; call it."""

    def make(**options):
        app = healthcheck.Healthcheck.app_factory({}, backends="glance_store", **options)

        def call(expected=None):
            """Ask, until the status is the expected one."""
            answers = []

            def asked():
                request = webob.Request.blank("/healthcheck", accept="application/json")
                response = request.get_response(app)
                answers.append((response.status_int, json.loads(response.body)["reasons"]))
                return expected in (None, response.status_int)

            until(asked, lambda: f"{expected}, but {answers[-1]}")
            return answers[-1]

        return call

    return make


def test_a_store_that_goes_and_returns(check, create_multi, tmp_path, caplog):
    create_multi({"fast": "file", "bulk": "file"})
    ask = check(detailed="true", glance_store_cache="0.05")
    _status, (reason,) = ask(200)
    assert reason["reason"] == "OK"
    assert "fast: ok, " in reason["details"]
    (tmp_path / "bulk").rename(tmp_path / "away")
    _status, (reason,) = ask(503)
    assert reason["reason"] == "unhealthy stores: bulk"
    assert f"{tmp_path}/bulk takes no images" in reason["details"]
    ask(503)
    (tmp_path / "away").rename(tmp_path / "bulk")
    ask(200)
    told = [one.getMessage() for one in caplog.records if one.name == "glance_store.healthcheck"]
    assert len([text for text in told if "Store bulk is unhealthy: " in text]) == 1


def test_stores_that_do_not_count(check, create_multi, tmp_path):
    create_multi({"fast": "file", "bulk": "file", "none": "nodriver"})
    assert check(glance_store_cache="0")() == (503, ["unhealthy stores: none"])
    (tmp_path / "bulk").rename(tmp_path / "away")
    assert check(glance_store_stores="fast")() == (200, ["OK"])
    # What is wrong is not for everybody.
    wrong = check(glance_store_stores="bulk, slow", glance_store_cache="0")
    assert wrong() == (503, ["unhealthy stores: slow, bulk"])


def test_answers_are_kept(check, create_multi, tmp_path):
    create_multi({"fast": "file"})
    ask = check(glance_store_cache="3600")
    assert ask() == (200, ["OK"])
    (tmp_path / "fast").rename(tmp_path / "away")
    assert ask() == (200, ["OK"])


def test_single_store_mode_and_no_store_at_all(check, create_single):
    ask = check()
    assert ask() == (503, ["no store is loaded"])
    create_single(["file"])
    assert ask() == (200, ["OK"])
    assert check(glance_store_stores="file")() == (200, ["OK"])


@pytest.fixture
def stuck(create_multi, monkeypatch):
    """A store whose backend does not answer until it is told to, and how often it was asked."""
    create_multi({"fast": "file", "bulk": "file"})
    answers, asked = threading.Event(), []
    store = location.SCHEME_TO_CLS_BACKEND_MAP["file"]["fast"]["store"]
    monkeypatch.setattr(
        store, "check_health", lambda: (asked.append(1), answers.wait(60), "ok at last")[-1]
    )
    yield answers, asked
    answers.set()


def test_a_store_that_does_not_answer_is_waited_for_once(check, stuck):
    answers, asked = stuck
    ask = check(detailed="true", glance_store_timeout="0.2", glance_store_cache="0")
    for _time in range(3):
        status, (reason,) = ask()
        assert status == 503
        assert "fast: no answer in " in reason["details"]
    assert len(asked) == 1
    answers.set()
    _status, (reason,) = ask(200)
    assert "fast: ok at last" in reason["details"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_asks_for_itself(check, stuck):
    """What its parent has asked is answered in the parent alone."""
    answers, asked = stuck
    ask = check(glance_store_timeout="0.1", glance_store_cache="3600")
    assert ask()[0] == 503
    child = os.fork()
    if not child:
        try:
            answers.set()
            os._exit(ask(200) != (200, ["OK"]))
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(asked) == 1


def test_a_backend_that_was_out_of_reach_is_configured_again(check, create_multi, monkeypatch):
    """The health check finds out that a store can be used; nobody has to use it before."""
    down = [True]

    def configure_add(_store):
        if down:
            raise glance_store.BackendUnavailable("the switch is off")

    monkeypatch.setattr(filesystem.Store, "configure_add", configure_add)
    create_multi({"fast": "file"})
    ask = check(detailed="true", glance_store_cache="0")
    _status, (reason,) = ask(503)
    assert "the switch is off" in reason["details"]
    down.clear()
    _status, (reason,) = ask()
    assert "the switch is off" not in reason["details"]
