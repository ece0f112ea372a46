"""A page in one file, in which strangers' text stays text."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

import pytest
from jinja2 import UndefinedError

from peeralign.report.page import render_page


def test_a_value_that_is_missing_is_no_empty_text() -> None:
    with pytest.raises(UndefinedError):
        render_page("head.html", {})


def test_only_the_page_s_own_script_may_run() -> None:
    page = render_page("head.html", {}, title="<script>alert(1)</script>")
    assert "<title>&lt;script&gt;" in page
    (allowed,) = re.findall(r"script-src 'sha256-([^']+)'", page)
    script = (resources.files("peeralign.report") / "page.js").read_bytes()
    assert allowed == base64.b64encode(hashlib.sha256(script).digest()).decode()
    assert "default-src 'none'" in page
