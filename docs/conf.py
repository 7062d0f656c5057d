"""How `make docs` builds the site: these pages, and the reference from the docstrings."""

from __future__ import annotations

import re
from typing import Any

import joulemap

project = "joulemap"
author = "The joulemap developers"
copyright = "2026, the joulemap developers"  # noqa: A001 - Sphinx's name for it
version = release = joulemap.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"joulemap {version}"
html_copy_source = False
myst_heading_anchors = 4

# A public name is documented in the package that offers it, not in the file that holds it.
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
# `bytes` in a signature is Python's, although two classes have an attribute of that name.
suppress_warnings = ["ref.python"]

# Pages link as the forge shows them; two files of the root are pages of the site.
_PAGES = {"../CONTRIBUTING.md": "contributing.md", "../CHANGELOG.md": "changelog.md"}
# scikit-learn adds these to every estimator.
_METADATA_ROUTING = re.compile(r"set_\w+_request")


def _link_within_the_site(app: object, name: str, source: list[str]) -> None:
    for path, page in _PAGES.items():
        source[0] = source[0].replace(f"]({path}", f"]({page}")


def _skip_metadata_routing(
    app: object, what: str, name: str, value: object, skip: bool, options: object
) -> bool | None:
    return True if _METADATA_ROUTING.fullmatch(name) else None


def setup(app: Any) -> None:
    """Connect what is special about these pages."""
    app.connect("source-read", _link_within_the_site)
    app.connect("autodoc-skip-member", _skip_metadata_routing)
