# SPDX-License-Identifier: Apache-2.0
"""Configuration of the documentation build."""

import logging
import sys
from importlib import metadata, util
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
templates_path = ["_templates"]
html_static_path = ["_static"]
if util.find_spec("openstackdocstheme"):
    extensions.append("openstackdocstheme")
    html_theme = "openstackdocs"
    html_css_files = ["pages.css"]
    # No readers are counted, and the version is that of the installed distribution.
    html_theme_options = {
        "analytics_tracking_code": "",
        "display_badge": False,
    }
    openstackdocs_auto_name = False
    openstackdocs_auto_version = False
    # In an unpacked sdist there is no commit to name, and that is fine.
    logging.getLogger("sphinx.openstackdocstheme.ext").addFilter(
        lambda record: "gitsha" not in record.getMessage()
    )
else:
    html_theme = "alabaster"
man_pages = [
    ("cli/glance-store", "glance-store", "look after the stores of an image service", [author], 1),
]
nitpicky = True
# Not on these pages: other libraries, what is private, and the parts that the kit is made of.
nitpick_ignore_regex = [
    ("py:class", r"(argparse|cfg|collections|concurrent|datetime|oslo_config)\..+"),
    ("py:class", r"(.+\.)?_[A-Za-z]+"),
    ("py:class", r"glance_store\.testing\.\w+\.\w+"),
    ("py:class", r"glance_store\.transfer\.(interface\.Unfinished|shared_reads\.SharedReads)"),
    # Names in docstrings: a link if there is such a page, else code.
    ("py:obj", r".+"),
]
autodoc_typehints = "description"

# The names that early releases gave to drivers have capitals; that is meant, and no warning.
logging.getLogger("oslo_config.generator").setLevel(logging.ERROR)
