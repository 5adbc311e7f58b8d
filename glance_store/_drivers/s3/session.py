# SPDX-License-Identifier: Apache-2.0
"""Sessions of boto3, and where they find the credentials of a store."""

from __future__ import annotations

import datetime
import functools
import importlib
import logging
from typing import TYPE_CHECKING, Any

from glance_store import exceptions
from glance_store._drivers.s3.redaction import REDACTION
from glance_store.i18n import _

if TYPE_CHECKING:
    from glance_store._drivers.s3.client import Settings

LOG = logging.getLogger(__name__)

# Seconds before reading again a file with credentials, and those for which botocore may put it off.
_REREAD = 60.0
_SPARE = 3600
# botocore's names of such files.
_FILES = ("shared-credentials-file", "config-file")


def load_boto3() -> Any:
    """Import boto3, which only S3 stores need; raise BadStoreConfiguration if it is missing."""
    try:
        boto3 = importlib.import_module("boto3")
    except ImportError as exc:
        raise exceptions.BadStoreConfiguration(
            _(
                "The S3 store needs the Python library boto3, which cannot be imported: "
                "pip install 'glance_store[s3]'"
            )
        ) from exc
    REDACTION.watch()
    return boto3


def new_session(settings: Settings, looking: bool = True) -> Any:
    """Return a boto3 session with the credentials of the store.

    With `looking`, it also searches for credentials that the options lack.
    """
    boto3 = load_boto3()
    import botocore.credentials
    import botocore.session

    REDACTION.hide(settings.access_key, settings.secret_key)
    below = botocore.session.get_session()
    if settings.access_key and below.profile not in (None, *below.available_profiles):
        # AWS_PROFILE is for others: with keys, the store needs no profile.
        below = botocore.session.get_session({"profile": (None, None, None, None)})
    below.register_component("data_loader", _descriptions())
    below.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parse_time)
    if not looking:
        nowhere = botocore.credentials.CredentialResolver(providers=[])
        below.register_component("credential_provider", nowhere)
    elif not settings.access_key:
        found = _RereadFiles(below.get_component("credential_provider"))
        below.register_component("credential_provider", found)
    return boto3.session.Session(
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        botocore_session=below,
    )


class _RereadFiles:
    """Finds credentials like `resolver`, and reads those in a file again from time to time.

    botocore reads a file once, but something may replace its keys before they expire.
    """

    def __init__(self, resolver: Any) -> None:
        self._resolver = resolver

    def load_credentials(self) -> Any:
        """Return the credentials, or None."""
        from botocore.credentials import RefreshableCredentials

        found = self._resolver.load_credentials()
        if found is None or found.method not in _FILES:
            return found
        known, file = found, self._resolver.get_provider(found.method)

        def read() -> dict[str, Any]:
            nonlocal known
            try:
                known = file.load() or known
            except Exception as exc:  # noqa: BLE001 - the file may be half written
                LOG.warning("Cannot read the S3 credentials again: %s", type(exc).__name__)
            REDACTION.hide(known.access_key, known.secret_key, known.token)
            now = datetime.datetime.now(datetime.timezone.utc)
            return {
                "access_key": known.access_key,
                "secret_key": known.secret_key,
                "token": known.token,
                "expiry_time": (now + datetime.timedelta(seconds=_REREAD + _SPARE)).isoformat(),
            }

        return RefreshableCredentials.create_from_metadata(
            read(), read, found.method, advisory_timeout=_SPARE, mandatory_timeout=0
        )


def _parse_time(value: Any) -> datetime.datetime:
    """Return the time in a response; a distant one if it cannot be parsed.

    botocore would fail on it, for example on the Last-Modified of a perfectly readable image.
    """
    import botocore.utils

    try:
        moment: datetime.datetime = botocore.utils.parse_timestamp(value)
    except (ValueError, TypeError, OverflowError):
        # In the future, so that nothing looks old enough to be removed.
        return datetime.datetime.max.replace(tzinfo=datetime.timezone.utc)
    return moment


@functools.lru_cache(maxsize=1)
def _descriptions() -> Any:
    """Return the loader of botocore's service descriptions, which caches them.

    Loading the one for S3 takes 0.1 s, nearly all the time it takes to create a client. The loader
    has no state, so that every session and every forked process can use it.
    """
    import botocore.loaders

    return botocore.loaders.create_loader()


def check_credentials(settings: Settings) -> None:
    """Look for credentials without using them; raise BadStoreConfiguration if there are none.

    If a configured provider does not answer, only log a warning: it may start later than this
    process.
    """
    if bool(settings.access_key) != bool(settings.secret_key):
        raise exceptions.BadStoreConfiguration(
            _(
                "Only one of s3_store_access_key and s3_store_secret_key is set: set both, or "
                "neither to use the credentials of the environment"
            )
        )
    if settings.access_key:
        return
    try:
        found = new_session(settings).get_credentials() is not None
        problem = ""
    except exceptions.BadStoreConfiguration:
        raise
    except Exception as exc:  # noqa: BLE001 - a broken profile and an unknown one alike
        problem = _passing_problem(exc)
        if problem:
            LOG.warning(
                "The credentials of the S3 store are not available now (%s); the store looks "
                "again when it needs them",
                problem,
            )
            return
        found, problem = False, f" ({type(exc).__name__})"
    if not found:
        raise exceptions.BadStoreConfiguration(
            _(
                "The options s3_store_access_key and s3_store_secret_key are not set, and no "
                "credentials were found in the environment, the profiles or the role of this "
                "host%s: set both options"
            )
            % problem
        )


def _passing_problem(exc: Exception) -> str:
    """Return why credentials are missing for now; empty if waiting does not help."""
    import botocore.exceptions

    if isinstance(exc, botocore.exceptions.CredentialRetrievalError):
        # Leave out its text, which quotes the output of a program.
        return f"{exc.kwargs.get('provider')}: {type(exc).__name__}"
    return ""


def session_with_credentials(settings: Settings) -> tuple[Any, str]:
    """Return a session, and why it has no credentials if so."""
    from glance_store._drivers.s3 import errors

    session = new_session(settings)
    try:
        credentials = session.get_credentials()
    except Exception as exc:
        problem = _passing_problem(exc)
        if not problem:
            raise
        return new_session(settings, looking=False), problem
    if credentials is None:
        return session, _("none were found")
    try:
        # This fetches the credentials of an assumed role; botocore renews them before they expire.
        known = errors.guarded(credentials.get_frozen_credentials, "Assuming the role of the store")
    except exceptions.RemoteServiceUnavailable as exc:
        LOG.warning("The credentials of the S3 store are not available now (%s)", exc)
    else:
        # Hide credentials from the environment as well; later ones match the known patterns.
        REDACTION.hide(*known[:3])
    return session, ""
