"""The pages that the examples are tried from: one template, each example's own part, and the Python behind it."""

import ast
import inspect
import keyword
import os
import re
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from verbtrio import App

EXAMPLES = Path(__file__).parent
PARTS = EXAMPLES / "pages"
TOKEN = re.compile(
    r'(?P<comment>#[^\n]*)|(?P<string>[fr]?(""".*?"""|"(\\.|[^"\\\n])*"))|(?P<decorator>@[\w.]+)'
    rf"|(?P<keyword>\b({'|'.join([*keyword.kwlist, 'match', 'case'])})\b)",
    re.DOTALL,
)
SDK_FOLDER = Path(os.environ.get("SDK_NPM", EXAMPLES), "node_modules/centrifuge/dist")
CDN = "https://cdn.jsdelivr.net/npm/centrifuge@5.8.0/dist/centrifuge.js"
CDN_INTEGRITY = "sha384-Hc/rqOA60dxGHNnO+nCm7KQ1yc4I121B7eeuuZ9vJMHEq6vVV4onLLtrwG8L79xQ"
CARD = '<li class="card"><h2><a href="{name}/">{title}</a></h2><p>{summary}</p></li>'


def add_page(app: App, file: str, *shown: Any, **values: object) -> None:
    """Serve an example's page at `/`, and what the page loads below `/pages`.

    Args:
        app: the example's application.
        file: the example's file. The page's own part is `pages/NAME.html`.
        shown: the functions and classes whose source is on the page. Without any, the whole file is.
        values: the values of placeholders in the page's own part.
    """
    path = Path(file)

    def content() -> str:
        code = "\n".join(map(inspect.getsource, shown)) or path.read_text("utf-8")
        shared = {name: fill(f"{name}.html") for name in ("login", "panel", "username")}
        own = fill(f"{path.stem}.html", **shared, **values)
        return own + fill("code.html", file=f"examples/{path.name}", code=highlight(code))

    serve(app, path, content)


def add_sdk(app: App) -> dict[str, str]:
    """Serve the Centrifuge protocol's SDK below `/sdk`, if npm has installed it: else pages load it from a CDN.

    npm's folder is the environment's `SDK_NPM`, or this one: `npm install --prefix examples centrifuge`.

    Returns:
        the values of a page's placeholders `$sdk` and `$integrity`.
    """
    if not SDK_FOLDER.is_dir():
        return {"sdk": CDN, "integrity": CDN_INTEGRITY}
    app.mount("/sdk", StaticFiles(directory=SDK_FOLDER))
    return {"sdk": "sdk/centrifuge.js", "integrity": ""}


def add_index(app: App, file: str, names: Iterable[str]) -> None:
    """Serve a page with a card for each of the named examples."""

    def card(name: str) -> str:
        title, summary = about(EXAMPLES / f"{name}.py")
        return CARD.format(name=name, title=escape(title), summary=escape(summary))

    serve(app, Path(file), lambda: fill("index.html", cards="\n".join(map(card, names))))


def serve(app: App, path: Path, content: Callable[[], str]) -> None:
    @app.get("/")
    def page(request: Request) -> HTMLResponse:  # not async: it reads files, so Starlette runs it in a thread
        title, summary = map(escape, about(path))
        home = "" if request.scope.get("root_path") else "hidden"  # there is an index only where this app is mounted
        values = {"name": path.stem, "title": title, "summary": summary, "home": home}
        return HTMLResponse(fill("page.html", content=content(), **values))

    app.mount("/pages", StaticFiles(directory=PARTS))


def fill(part: str, **values: object) -> str:
    return Template((PARTS / part).read_text("utf-8")).substitute(values)


def about(path: Path) -> tuple[str, str]:
    """The title and the summary of an example: its docstring begins with "Title: summary."."""
    title, _, text = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition(": ")
    summary = re.split(r"(?<=\.)\s", text, maxsplit=1)[0]
    return title, " ".join((summary[:1].upper() + summary[1:]).split())


def highlight(code: str) -> str:
    """HTML of Python code, with a span around each keyword, string, comment and decorator."""
    escaped = escape(code.strip("\n"), quote=False)
    return TOKEN.sub(lambda token: f'<span class="{token.lastgroup}">{token[0]}</span>', escaped)
