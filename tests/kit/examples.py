# SPDX-License-Identifier: Apache-2.0
"""The modules that the documentation shows, imported from where it keeps them."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "doc" / "source" / "examples"


def load(name: str) -> types.ModuleType:
    """Return a module of the documentation, importable by its name from then on."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
