# SPDX-License-Identifier: Apache-2.0
"""Translation of messages.

Log lines are no longer translated. ``_LI``, ``_LW``, ``_LE`` and ``_LC`` return their text
unchanged; they exist for drivers that still import them.
"""

from __future__ import annotations

import oslo_i18n

DOMAIN = "glance_store"

_translators = oslo_i18n.TranslatorFactory(domain=DOMAIN)

_ = _translators.primary


def _untranslated(text: str) -> str:
    return text


_LI = _LW = _LE = _LC = _untranslated
