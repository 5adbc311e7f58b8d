# SPDX-License-Identifier: Apache-2.0
"""The session at a vCenter or ESXi host: one in each process, shared by all threads of a store."""

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
# An account is locked after a few wrong passwords: one that was refused is not sent again at once.
_LOGIN_PAUSE = 60.0
# Seconds that a process waits at its end for the server to take note of it.
_LOGOUT_TIMEOUT = 3.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that every request obeys."""

    host: str
    user: str
    password: str = dataclasses.field(repr=False)
    # What requests takes: True, False, or the path of a file of authorities.
    verify: bool | str
    connect_timeout: float  # seconds
    read_timeout: float  # seconds
    patience: float  # seconds
    attempts: int  # further tries of a request at most
    task_timeout: float  # seconds
    poll_interval: float  # seconds

    @classmethod
    def of(cls, conf: Any) -> Settings:
        """Return the settings of a store.

        :param conf: its options as attributes
        :raises BadStoreConfiguration: an option is missing
        """
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
        """The time-outs as requests takes them, seconds."""
        return self.connect_timeout, self.read_timeout

    @property
    def base_url(self) -> str:
        """The address of the server."""
        return f"https://[{self.host}]" if ":" in self.host else f"https://{self.host}"

    def new_patience(self, in_all: bool = False) -> Patience:
        """Return the patience for a new transfer, or for a clean-up."""
        return Patience(self.patience, in_all, self.attempts)


class Session:
    """The session of one process. Its login is renewed once when the server has ended it.

    :param settings: the options
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # What the server calls what has a name here; see `datastores.Inventory`.
        self.references: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self._vim: Any = None
        self._cookie: str | None = None  # of the session that the server has opened
        self._attempts = 0
        self._failure: exceptions.GlanceStoreException | None = None
        self._refused_until = 0.0  # on the monotonic clock
        self._process = os.getpid()
        _log_out_at_the_end(self)

    def call(self, function: Callable[[Any], _T], action: str) -> _T:
        """Call a function of the vSphere API.

        :param function: takes the `oslo_vmware.vim.Vim`
        :param action: what is tried: the beginning of an error's text
        :returns: what the function returns
        :raises DatastoreUnavailable: the server cannot be reached, or another try may work
        :raises DatastoreDenied: the server does not accept a new session either
        :raises GlanceStoreException: the server refuses, see `errors`
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
        """Return a property of a managed object.

        :param target: the object
        :param name: of the property
        :param action: what is tried
        """
        from oslo_vmware import vim_util

        return self.call(lambda vim: vim_util.get_object_property(vim, target, name), action)

    def task(
        self, start: Callable[[Any], Any], action: str, patience: Patience | None = None
    ) -> Any:
        """Run a task of the server and wait for its end.

        :param start: takes the `Vim` and starts the task
        :param action: what is tried
        :param patience: of the transfer that it is a part of
        :returns: the result of the task
        :raises DatastoreUnavailable: it is not known whether the task has done its work
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
                    _("%(action)s: the task has not ended in %(seconds)d s"),
                    action=action,
                    seconds=self.settings.task_timeout,
                )
            patience.wait(pause)
            pause = min(2 * pause, self.settings.poll_interval)

    def _cancel(self, task: Any, action: str) -> None:
        try:
            self.call(lambda vim: vim.CancelTask(task), action)
        except exceptions.GlanceStoreException as exc:
            # Some tasks cannot be cancelled, and one may have ended meanwhile.
            LOG.debug("%s", exc)

    def cookie(self, action: str) -> str:
        """Return the cookie of the session, made if there is none.

        :param action: what is tried
        """
        cookie = self._cookie
        return self.renew(None, action) if cookie is None else cookie

    def renew(self, ended: str | None, action: str) -> str:
        """Log in, unless another thread has done so meanwhile.

        :param ended: the cookie of the session that does not hold any more
        :param action: what is tried
        """
        seen = self._attempts
        with self._lock:
            if self._cookie is not None and self._cookie != ended:
                return self._cookie
            waited_in_vain = self._attempts != seen or time.monotonic() < self._refused_until
            if self._failure is not None and waited_in_vain:
                # Another thread has just tried: not once more as long, and no wrong password again.
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
        # With the cookie of another session the server refuses the login.
        vim.client.cookiejar.clear()
        vim.Login(
            vim.service_content.sessionManager,
            userName=self.settings.user,
            password=self.settings.password,
            locale="en",
        )
        LOG.debug("Logged in at %s", self.settings.host)
        return vim.get_http_cookie() or ""

    def _end(self, vim: Any) -> None:
        """End the session at the server, which keeps a limited number of them."""
        action = _("Logging out at %s") % self.settings.host
        try:
            errors.soap_guarded(lambda: vim.Logout(vim.service_content.sessionManager), action)
        except exceptions.GlanceStoreException as exc:
            LOG.debug("%s; the server ends the session after a while, or has done so", exc)

    def log_out(self) -> None:
        """End the session, at the end of a process."""
        cookie, self._cookie = self._cookie, None
        if cookie is not None and os.getpid() == self._process:
            self._vim.client.options.transport.limits = (_LOGOUT_TIMEOUT, _LOGOUT_TIMEOUT)
            self._end(self._vim)


class Sessions:
    """The sessions of a store. A forked child makes its own and leaves alone what it inherits.

    :param settings: the options
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._by_process: dict[int, Session] = {}

    def current(self) -> Session:
        """Return the session of this process."""
        # No lock: held by another thread while this one forks it would stay locked in the child.
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, Session(self.settings))

    def log_out(self) -> None:
        """End the session of this process."""
        session = self._by_process.pop(os.getpid(), None)
        if session is not None:
            session.log_out()


def _log_out_at_the_end(session: Session) -> None:
    # Not when the object goes: the garbage collector would wait for the server.
    reference = weakref.ref(session)

    def log_out() -> None:
        found = reference()
        if found is not None:
            found.log_out()

    atexit.register(log_out)
    weakref.finalize(session, atexit.unregister, log_out).atexit = False
