"""One HTML file that needs nothing else, rendered from `template.html`, `page.css` and `page.js`.

The template escapes whatever it is given, except charts: those escape their own text.
"""

import base64
import hashlib
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipelines.report.missing import Missing


def render(**content: Any) -> bytes:
    return _ENVIRONMENT.get_template("template.html").render(content).encode()


def _csp_hash(name: str) -> str:
    """The hash by which the page's policy knows its own style and script."""
    text = _ENVIRONMENT.get_template(name).render()
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters["csp_hash"] = _csp_hash
_ENVIRONMENT.tests["missing"] = lambda value: isinstance(value, Missing)
_ENVIRONMENT.globals["infinity"] = math.inf
