"""The report as one HTML text: style, scripts, charts and facts inside; it asks nothing of anybody.

What comes from a run (prompts, answers, names) is text that nobody vouches for. It travels as JSON, which can't end its
script element, and the page's scripts make text nodes of it. The page's policy lets only the scripts run that are in it.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, cast

from evo.report.contract import Facts
from evo.report.sections.headline import in_a_line

SCRIPTS = (
    "dom.js",
    "theme.js",
    "chart.js",
    "section.js",
    "headline.js",
    "fitness.js",
    "scores.js",
    "family.js",
    "shares.js",
    "path.js",
    "changed.js",
    "progress.js",
    "cost.js",
    "live.js",
    "main.js",
)


def page(facts: Mapping[str, Any] | None, live: bool = False) -> str:
    """A whole HTML document.

    Args:
        facts: what :func:`evo.report.facts.facts` gives (``evo.report.contract`` describes it); None
            for a live page that is to fetch them.
        live: fetch ``data.json`` from where the page came from, again and again, and redraw.

    Raises:
        ValueError: the facts hold NaN or infinity, which JSON can't say.
    """
    charts = _asset("echarts.min.js")
    script = '"use strict";\n(() => {\n' + "\n".join(map(_asset, SCRIPTS)) + "\n})();\n"
    style = _asset("report.css")
    name = facts["run"]["name"] if facts else "run"
    parts = {
        "policy": _policy(style, (charts, script), live),
        "title": html.escape(f"{name} – evo report"),
        "result": html.escape(f"{name}: {in_a_line(cast(Facts, facts))}.") if facts else "",
        "live": "true" if live else "false",
        "style": style,
        "facts": _embedded(facts),
        "charts": charts,
        "script": script,
    }
    # In one pass: what is put in is never looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("report.html"))


def _asset(name: str) -> str:
    return (files("evo.report") / "assets" / name).read_text(encoding="utf-8")


def _embedded(facts: Mapping[str, Any] | None) -> str:
    """JSON that no HTML parser takes for markup: ``</script>`` and ``<!--`` can't occur in it."""
    text = json.dumps(facts, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(style: str, scripts: tuple[str, ...], live: bool) -> str:
    """The Content-Security-Policy: nothing but what is in the page, by its hash."""
    directives = [
        "default-src 'none'",
        "script-src " + " ".join(map(_hash, scripts)),
        f"style-src {_hash(style)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join([*directives, "connect-src 'self'"] if live else directives)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
