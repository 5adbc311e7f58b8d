# SPDX-License-Identifier: Apache-2.0
"""The session with a vCenter or ESXi host: one per process, shared by a store's threads."""

from __future__ import annotations

import atexit
import dataclasses
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from glance_store import exceptions
from glance_store._drivers.vmware_datastore import errors, soap
from glance_store.i18n import _
from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")

_FIRST_POLL = 0.05
# Seconds before retrying a rejected login: a few wrong passwords lock the account.
_LOGIN_PAUSE = 60.0
# Seconds to wait for the server when logging out at exit.
_LOGOUT_TIMEOUT = 3.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that apply to every request."""

    host: str
    user: str
    password: str = dataclasses.field(repr=False)
    # As for requests: True, False, or the path of a CA file.
    verify: bool | str
    connect_timeout: float  # seconds
    read_timeout: float  # seconds
    patience: float  # seconds
    attempts: int  # maximum retries of a request
    task_timeout: float  # seconds
    poll_interval: float  # seconds

    @classmethod
    def of(cls, conf: Any) -> Settings:
        """Return a store's settings. Raises BadStoreConfiguration if an option is missing."""
        for name in ("vmware_server_host", "vmware_server_username", "vmware_server_password"):
            if not getattr(conf, name):
                raise exceptions.BadStoreConfiguration(_("The option %s is not set") % name)
        return cls(
            host=conf.vmware_server_host,
            user=conf.vmware_server_username,
            password=conf.vmware_server_password,
            verify=conf.vmware_ca_file or not conf.vmware_insecure,
            connect_timeout=conf.vmware_store_connect_timeout,
            read_timeout=conf.vmware_store_read_timeout,
            patience=conf.vmware_store_retry_timeout,
            attempts=conf.vmware_api_retry_count,
            task_timeout=conf.vmware_store_task_timeout,
            poll_interval=conf.vmware_task_poll_interval,
        )

    @property
    def limits(self) -> tuple[float, float]:
        """The timeouts in seconds, as for requests."""
        return self.connect_timeout, self.read_timeout

    @property
    def base_url(self) -> str:
        """The URL of the server."""
        return f"https://[{self.host}]" if ":" in self.host else f"https://{self.host}"

    def new_patience(self, in_all: bool = False) -> Patience:
        """Return the patience for a new transfer, or for a cleanup."""
        return Patience(self.patience, in_all, self.attempts)


class Session:
    """One process's session, logged in again once if the server has ended it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # The server's references by our names; see `datastores.Inventory`.
        self.references: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self._vim: Any = None
        self._cookie: str | None = None  # of the open session
        self._attempts = 0
        self._failure: exceptions.GlanceStoreException | None = None
        self._refused_until = 0.0  # on the monotonic clock
        self._process = os.getpid()
        _log_out_at_the_end(self)

    def call(self, function: Callable[[Any], _T], action: str) -> _T:
        """Call a function with the `oslo_vmware.vim.Vim` and return its result.

        `action` begins the text of an error. Raises DatastoreUnavailable if a retry may help,
        DatastoreDenied if the server rejects even a new session, and otherwise what `errors` says.
        """
        cookie = self.cookie(action)
        try:
            return self._call_once(function, action)
        except errors.SessionExpired:
            self.renew(cookie, action)
        try:
            return self._call_once(function, action)
        except errors.SessionExpired as exc:
            raise errors.DatastoreDenied(str(exc)) from None

    def _call_once(self, function: Callable[[Any], _T], action: str) -> _T:
        try:
            return errors.soap_guarded(lambda: function(self._vim), action)
        except errors.ReferenceGone:
            self.references.clear()
            raise

    def property(self, target: Any, name: str, action: str) -> Any:
        """Return a property of a managed object."""
        from oslo_vmware import vim_util

        return self.call(lambda vim: vim_util.get_object_property(vim, target, name), action)

    def task(
        self, start: Callable[[Any], Any], action: str, patience: Patience | None = None
    ) -> Any:
        """Run a task on the server, wait for its end and return its result.

        `start` takes the `Vim` and starts the task. Raises DatastoreUnavailable if it is unknown
        whether the task did its work.
        """
        patience = patience or self.settings.new_patience()
        task = self.call(start, action)
        deadline = time.monotonic() + self.settings.task_timeout
        pause = _FIRST_POLL
        while True:
            info = patience.call(lambda: self.property(task, "info", action))
            if info.state == "success":
                return getattr(info, "result", None)
            if info.state == "error":
                fault = info.error.fault
                message = getattr(info.error, "localizedMessage", "")
                raise errors.of_fault(type(fault).__name__, str(message), action, vars(fault))
            if time.monotonic() > deadline or patience.stopped:
                self._cancel(task, action)
                raise errors.DatastoreUnavailable(
                    _(
                        "%(action)s: the task has not ended within %(seconds)d seconds "
                        "(vmware_store_task_timeout)"
                    ),
                    action=action,
                    seconds=self.settings.task_timeout,
                )
            patience.wait(pause)
            pause = min(2 * pause, self.settings.poll_interval)

    def _cancel(self, task: Any, action: str) -> None:
        try:
            self.call(lambda vim: vim.CancelTask(task), action)
        except exceptions.GlanceStoreException as exc:
            # Some tasks cannot be cancelled, and this one may have just ended.
            LOG.debug("%s", exc)

    def cookie(self, action: str) -> str:
        """Return the session's cookie; log in if there is no session."""
        cookie = self._cookie
        return self.renew(None, action) if cookie is None else cookie

    def renew(self, ended: str | None, action: str) -> str:
        """Log in, unless another thread has already replaced the cookie `ended`."""
        seen = self._attempts
        with self._lock:
            if self._cookie is not None and self._cookie != ended:
                return self._cookie
            waited_in_vain = self._attempts != seen or time.monotonic() < self._refused_until
            if self._failure is not None and waited_in_vain:
                # Another thread has just tried: do not wait as long again, or send a wrong password
                # again.
                raise type(self._failure)(self._failure.msg)
            try:
                self._cookie = errors.soap_guarded(self._log_in, action)
                self._failure = None
            except exceptions.GlanceStoreException as exc:
                denied = isinstance(exc, errors.SessionExpired)
                self._failure = errors.DatastoreDenied(str(exc.msg)) if denied else exc
                if isinstance(exc, errors.LoginRefused):
                    self._refused_until = time.monotonic() + _LOGIN_PAUSE
                raise self._failure from None
            finally:
                self._attempts += 1
            return self._cookie

    def _log_in(self) -> str:
        if self._vim is None:
            self._vim = soap.connect(self.settings)
        vim = self._vim
        if self._cookie is not None:
            self._end(vim)
        # The server refuses a login that carries another session's cookie.
        vim.client.cookiejar.clear()
        vim.Login(
            vim.service_content.sessionManager,
            userName=self.settings.user,
            password=self.settings.password,
            locale="en",
        )
        LOG.debug("Logged in to %s", self.settings.host)
        return vim.get_http_cookie() or ""

    def _end(self, vim: Any) -> None:
        """Log out, as the server keeps only a limited number of sessions."""
        action = _("Logging out of %s") % self.settings.host
        try:
            errors.soap_guarded(lambda: vim.Logout(vim.service_content.sessionManager), action)
        except exceptions.GlanceStoreException as exc:
            LOG.debug("%s; the server ends the session after a while, or already has", exc)

    def log_out(self) -> None:
        """End the session, at the end of a process."""
        cookie, self._cookie = self._cookie, None
        if cookie is not None and os.getpid() == self._process:
            self._vim.client.options.transport.limits = (_LOGOUT_TIMEOUT, _LOGOUT_TIMEOUT)
            self._end(self._vim)


class Sessions:
    """A store's sessions. A forked child opens its own and leaves its parent's alone."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._by_process: dict[int, Session] = {}

    def current(self) -> Session:
        """Return the session of this process."""
        # Not a lock: one held during a fork by another thread would stay locked in the child.
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, Session(self.settings))

    def log_out(self) -> None:
        """End the session of this process."""
        session = self._by_process.pop(os.getpid(), None)
        if session is not None:
            session.log_out()


def _log_out_at_the_end(session: Session) -> None:
    # Not from a finalizer: the garbage collector would wait for the server.
    reference = weakref.ref(session)

    def log_out() -> None:
        found = reference()
        if found is not None:
            found.log_out()

    atexit.register(log_out)
    weakref.finalize(session, atexit.unregister, log_out).atexit = False
