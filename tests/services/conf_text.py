# SPDX-License-Identifier: Apache-2.0
"""Text of configuration files."""

from __future__ import annotations

from collections.abc import Mapping


def conf_text(sections: Mapping[str, Mapping[str, object]]) -> str:
    """Return the text of a configuration file in INI format."""
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
        for name, values in sections.items()
    )
