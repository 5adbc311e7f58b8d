# SPDX-License-Identifier: Apache-2.0
"""Translation of messages that an operator reads.

Drivers of earlier years import ``_LI``, ``_LW``, ``_LE`` and ``_LC`` for what they log; log lines
are not translated any more, and the four return their text as it is.
"""

from __future__ import annotations

import oslo_i18n

DOMAIN = "glance_store"

_translators = oslo_i18n.TranslatorFactory(domain=DOMAIN)

_ = _translators.primary


def _untranslated(text: str) -> str:
    return text


_LI = _LW = _LE = _LC = _untranslated
