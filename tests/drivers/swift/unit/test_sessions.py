# SPDX-License-Identifier: Apache-2.0
"""Tokens that several threads use and replace, and the accounts that are kept for them."""

from __future__ import annotations

import threading
import types
import weakref
from typing import Any

import pytest
from keystoneauth1.identity import v3

from glance_store import exceptions
from glance_store._drivers.swift import auth, trust
from glance_store.transfer.retry import Patience


class Access:
    """What the identity service has answered."""

    def __init__(self, number: int) -> None:
        self.auth_token = f"token{number}"

    def will_expire_soon(self, stale_duration: int = 30) -> bool:
        return False


class Plugin(v3.Password):
    """The real one, with as many tokens as are wanted."""

    def __init__(self) -> None:
        super().__init__(auth_url="http://127.0.0.1:1/v3", username="user", password="canary")
        self.fetched = 0

    def get_auth_ref(self, session: Any, **_given: Any) -> Any:
        self.fetched += 1
        return Access(self.fetched)


class Meddling:
    """The lock of a plugin; the first time that it is released another thread does something."""

    def __init__(self, action: Any) -> None:
        self._lock = threading.Lock()
        self.threads: list[threading.Thread] = []
        self._action = action

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_exception: object) -> None:
        self._lock.release()
        if not self.threads:
            self.threads.append(threading.Thread(target=self._action))
            self.threads[0].start()
            # It comes to its end here, or waits for this thread to come to its own.
            self.threads[0].join(0.5)


def no_patience() -> Patience:
    return Patience(0)


def account_of(session: Any) -> auth.SessionAccount:
    return auth.SessionAccount(
        types.SimpleNamespace(url="http://swift/v1/x"), session, 60, no_patience
    )


def trust_of(session: Any) -> trust.Trust:
    answers = {
        "GET": {
            "token": {
                "expires_at": "2100-01-01T00:00:00.000000Z",
                "user": {"id": "user"},
                "project": {"id": "project"},
                "roles": [{"id": "role"}],
            }
        },
        "POST": {"trust": {"id": "trust"}},
    }

    def request(_url: str, method: str, **_given: Any) -> Any:
        return types.SimpleNamespace(content=b"x", json=lambda: answers[method])

    service = types.SimpleNamespace(request=request, get_user_id=lambda: "service")
    return trust.Trust(
        service, lambda _id: account_of(session), "http://127.0.0.1:1/v3", "token", no_patience
    )


@pytest.mark.parametrize("kind", ["account", "trust"])
def test_token_is_replaced_while_another_thread_asks_for_one(kind):
    """keystoneauth forgets a token that it is about to return, if another thread says so."""
    plugin = Plugin()
    session = types.SimpleNamespace(auth=plugin)
    account = account_of(session) if kind == "account" else trust_of(session).account
    ask, renew = account.token, account.renew
    assert ask() == "token1"
    lock = Meddling(lambda: renew("token1"))
    plugin._lock = lock
    assert ask() == "token1"
    lock.threads[0].join(60)
    assert ask() == "token2"
    assert plugin.fetched == 2


def test_refused_token_is_replaced_once():
    plugin = Plugin()
    account = account_of(types.SimpleNamespace(auth=plugin))
    refused = account.token()
    assert [account.renew(refused) for _thread in range(4)] == ["token2"] * 4
    assert plugin.fetched == 2


def test_connection_of_the_caller_authenticates_once():
    """Its threads do not all do so."""
    begun, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def get_auth() -> tuple[str, str]:
        calls.append(1)
        begun.set()
        assert go_on.wait(60)
        return "http://swift/v1/x", "new"

    connection = types.SimpleNamespace(url="http://swift/v1/x", token="old", get_auth=get_auth)
    account = auth.GivenAccount(connection)
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda: results.append(account.renew("old"))) for _n in range(3)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert results == ["new"] * 3
    assert calls == [1]


def test_users_own_token_that_is_refused_is_an_error_of_the_token():
    connection = types.SimpleNamespace(url="http://swift/v1/x", token="token")
    account = trust.UserAccount(connection, 60, None)
    with pytest.raises(exceptions.BackendException, match="swift_store_use_trusts"):
        account.renew("token")


# -- accounts that are kept


class Kept:
    """Stands for an account."""


def test_accounts_of_locations_are_kept_in_limits():
    held = auth.Sessions(kept=3)
    made: list[str] = []

    def get(name: str, stays: bool = False) -> Any:
        def make() -> Any:
            made.append(name)
            return Kept()

        return held.get(name, stays, make)

    own = get("own", stays=True)
    first = get("a")
    in_use, alive = weakref.ref(first), get("b")
    assert get("a") is first
    for number in range(100):
        get(f"guessed {number}")
    assert get("own") is own
    # The one that is in use works on; it is closed when it is let go of.
    assert in_use() is first
    assert get("a") is not first
    del first
    assert in_use() is None
    assert get("b") is not alive
    assert made.count("own") == 1
    assert len(held._passing) == 3


def test_last_used_account_is_kept():
    held = auth.Sessions(kept=2)

    def get(name: str) -> Any:
        return held.get(name, False, Kept)

    first = get("a")
    get("b")
    assert get("a") is first
    get("c")
    assert get("a") is first


def test_account_becomes_one_of_the_configuration():
    held = auth.Sessions(kept=1)
    first = held.get("a", False, Kept)
    assert held.get("a", True, Kept) is first
    held.get("b", False, Kept)
    held.get("c", False, Kept)
    assert held.get("a", False, Kept) is first


def test_accounts_belong_to_a_process(monkeypatch):
    held = auth.Sessions()
    first = held.get("a", True, Kept)
    monkeypatch.setattr(auth.os, "getpid", lambda: -1)
    assert held.get("a", True, Kept) is not first
