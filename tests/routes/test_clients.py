"""`app.centrifuge` and `@app.call`: mistakes in what they are given are told where they are made."""

from __future__ import annotations

from typing import Any

import pytest

from verbtrio import App, Client
from verbtrio.auth import JWTAuth


@pytest.mark.parametrize(
    ("path", "settings", "error", "message"),
    [
        ("/c", {"auth": JWTAuth}, TypeError, r"auth is an object, and JWTAuth a class: write auth=JWTAuth\(\.\.\.\)"),
        ("/c", {"auth": "secret"}, TypeError, r"auth is a verbtrio\.auth\.JWTAuth\(\.\.\.\), or has"),
        (
            "/c",
            {"personal": True},
            TypeError,
            r'personal is the name of a user\'s own room, like "#\{user\}", not True',
        ),
        (
            "/c",
            {"personal": "me"},
            ValueError,
            r'personal is the name of a user\'s own room, like "#\{user\}", not \'me',
        ),
        ("/c/websocket", {}, ValueError, r"it adds /websocket to its path itself: write app\.centrifuge\('/c'\)"),
        ("/c/sse/", {}, ValueError, r"it adds /sse to its path itself: write app\.centrifuge\('/c'\)"),
        ("/c/http_stream", {}, ValueError, r"it adds /http_stream to its path itself: write app\.centrifuge\('/c'\)"),
    ],
)
def test_an_endpoint(path: str, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    app = App()
    routes = len(app.routes)
    with pytest.raises(error, match=message):
        app.centrifuge(path, **settings)
    assert len(app.routes) == routes


def test_a_call() -> None:
    app = App()

    @app.call("rename")
    async def rename(client: Client) -> None: ...

    with pytest.raises(ValueError, match=r"there is a call 'rename' already: give this one another name"):
        app.call("rename")(rename)
    with pytest.raises(ValueError, match=r"a call has a name: write @app\.call\(\"rename\"\)"):
        app.call("")(rename)
