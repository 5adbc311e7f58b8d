# SPDX-License-Identifier: Apache-2.0
"""Configuration of the documentation build."""

import logging
import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "glance_store"
author = "The glance_store 6 developers"
copyright = author
release = metadata.version("glance_store")
version = release.rpartition(".")[0]

extensions = [
    "sphinx.ext.autodoc",
    "reno.sphinxext",
    "oslo_config.sphinxext",
    "release_notes_of_tree",
]
html_theme = "alabaster"
man_pages = [
    ("cli/glance-store", "glance-store", "look after the stores of an image service", [author], 1),
]
nitpicky = False
autodoc_typehints = "description"

# The names that early releases gave to drivers have capitals; that is meant, and no warning.
logging.getLogger("oslo_config.generator").setLevel(logging.ERROR)
