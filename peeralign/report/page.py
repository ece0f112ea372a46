"""A page that is one file: style, script and images are in it, and it loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup


def render_page(template: str, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """The text of a page. All `values` but Markup are escaped: answers are strangers' text."""
    environment = Environment(
        loader=FunctionLoader(_part),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    script = _part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        **values,
        style=Markup(_part("page.css")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _part(name: str) -> str:
    return (resources.files("peeralign.report") / name).read_text(encoding="utf-8")
