"""The AsyncAPI document: its structure, and that its schemas accept what the decoder accepts.

If the environment's ASYNCAPI_SCHEMA names AsyncAPI's own JSON Schema (3.0.0.json of npm's @asyncapi/specs, which
`nox -s tests` fetches if there is npm), the documents are checked against that, too.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount

from verbtrio import JSON, App, MessageError, WebSocket
from verbtrio.messages.decoder import Decoder
from verbtrio.routes.asyncapi import Channel, document

jsonschema: Any = importlib.import_module("jsonschema")  # untyped


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Line(msgspec.Struct, tag="line"):
    ends: tuple[Point, Point]


class Say(msgspec.Struct, tag="say", tag_field="type"):
    """What somebody says."""

    text: str


class Draw(msgspec.Struct, tag="draw", tag_field="type"):
    shapes: list[Circle | Line]
    colours: dict[str, str | None] = {}


class Said(msgspec.Struct, tag="said", tag_field="type"):
    text: str
    by: str | None = None


KINDS: list[Any] = [
    str,
    bytes,
    str | bytes,
    JSON,
    dict,
    dict[str, int],
    list[Say],
    int | None,
    Say,
    Say | Draw,
    Say | str,
    Point | None,
    tuple[int, str],
]


POINTS = st.builds(Point, st.integers(-5, 5), st.integers(-5, 5))
CIRCLES = st.builds(Circle, st.floats(-5, 5))
LINES = st.builds(Line, st.tuples(POINTS, POINTS))
COLOURS = st.dictionaries(st.text("ab"), st.none() | st.text("ab"))
SAYS = st.builds(Say, st.text())
DRAWS = st.builds(Draw, st.lists(CIRCLES | LINES, max_size=3), COLOURS)
MESSAGES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Say | Draw, SAYS | DRAWS),
    (Point | None, POINTS | st.none()),
    (dict[str, int], st.dictionaries(st.text("ab"), st.integers(-5, 5))),
    (list[Say | Draw], st.lists(SAYS | DRAWS, max_size=3)),
    (tuple[int, str], st.tuples(st.integers(-5, 5), st.text("ab"))),
]


def describe(*channels: Channel) -> dict[str, Any]:
    return document(channels, title="Test", version="1.0.0")


def example_app() -> App:
    app = App()

    @app.ws("/ws/:room/{seat:int}", sends=Said | bytes)
    async def chat(ws: WebSocket[Say | Draw], room: str, seat: int) -> None:
        """A chat.

        With drawings.
        """

    app.ws("/echo", message=lambda ws, message: None)
    app.sse("/events/:room", sends=Said)
    app.get("/page")(lambda request: None)
    group = app.group("/api/:version")

    @group.ws("/ws/:room")
    class Other:
        def message(self, ws: WebSocket, message: Say) -> None: ...

    inner = App()
    inner.ws("/ws", message=lambda ws, message: None)
    app.mount("/inner", inner)
    app.asyncapi(title="Chat", version="2.0.0", description="Talk.")
    return app


def references(thing: Any) -> Iterator[str]:
    if isinstance(thing, dict):
        for key, value in thing.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(thing, list):
        for part in thing:
            yield from references(part)


def look_up(described: dict[str, Any], reference: str) -> Any:
    place: Any = described
    for part in reference.removeprefix("#/").split("/"):
        place = place[part]
    return place


def check(described: dict[str, Any]) -> None:
    """Check what the specification requires, and a JSON Schema can't express."""
    for reference in references(described):
        look_up(described, reference)
    for operation in described["operations"].values():
        channel = look_up(described, operation["channel"]["$ref"])
        prefix = f"{operation['channel']['$ref']}/messages/"
        for message in operation["messages"]:
            assert message["$ref"].startswith(prefix)
            assert message["$ref"].removeprefix(prefix) in channel["messages"]
    for channel in described["channels"].values():
        named = {part.partition("}")[0] for part in channel["address"].split("{")[1:]}
        assert set(channel.get("parameters", {})) == named
    for schema in described["components"]["schemas"].values():
        jsonschema.Draft7Validator.check_schema(schema)
    path = os.environ.get("ASYNCAPI_SCHEMA")
    if path is not None:
        jsonschema.validate(described, json.loads(Path(path).read_text()))


class TestOfAnApp:
    async def test_it_is_served_at_its_path(self) -> None:
        app = example_app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            response = await client.get("/asyncapi.json")
        assert response.headers["content-type"] == "application/json"
        assert response.json() == app.asyncapi_document(title="Chat", version="2.0.0", description="Talk.")

    async def test_nothing_is_published_otherwise(self) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(App()), base_url="http://x") as client:
            assert (await client.get("/asyncapi.json")).status_code == 404

    def test_what_is_in_it(self) -> None:
        described = example_app().asyncapi_document(title="Chat", version="2.0.0", description="Talk.")
        check(described)
        assert described["info"] == {"title": "Chat", "version": "2.0.0", "description": "Talk."}
        addresses = {channel["address"]: channel for channel in described["channels"].values()}
        assert {address: sorted(channel["messages"]) for address, channel in addresses.items()} == {
            "/ws/{room}/{seat}": ["Draw", "ErrorMessage", "Said", "Say", "binary"],
            "/echo": ["binary", "text"],
            "/events/{room}": ["Said"],
            "/api/{version}/ws/{room}": ["ErrorMessage", "Say"],
            "/inner/ws": ["binary", "text"],
        }
        assert addresses["/ws/{room}/{seat}"]["description"] == "A chat.\n\nWith drawings."
        operations = {name: operation["action"] for name, operation in described["operations"].items()}
        assert operations == {
            "receive_ws_room_seat": "receive",
            "send_ws_room_seat": "send",
            "receive_echo": "receive",
            "send_events_room": "send",
            "receive_api_version_ws_room": "receive",
            "send_api_version_ws_room": "send",
            "receive_inner_ws": "receive",
        }
        messages = described["components"]["messages"]
        assert messages["Say"]["contentType"] == "application/json"
        assert messages["binary"] == {
            "name": "binary",
            "contentType": "application/octet-stream",
            "payload": {"type": "string", "format": "binary"},
        }
        schemas = described["components"]["schemas"]
        assert schemas["Say"]["description"] == "What somebody says."
        assert schemas["Draw"]["properties"]["shapes"]["items"]["discriminator"] == "type"  # AsyncAPI's, not OpenAPI's
        assert schemas["Line"]["properties"]["ends"]["items"] == [{"$ref": "#/components/schemas/Point"}] * 2

    def test_of_a_mounted_app(self) -> None:
        """Its addresses are without the mount's prefix, which it does not know."""
        app = example_app()
        Starlette(routes=[Mount("/chat", app=app)])
        addresses = [c["address"] for c in app.asyncapi_document(title="x", version="1")["channels"].values()]
        assert "/echo" in addresses

    def test_of_nothing(self) -> None:
        described = App().asyncapi_document(title="x", version="1")
        check(described)
        assert described["channels"] == described["operations"] == {}

    def test_a_type_without_a_schema(self) -> None:
        app = App()
        app.ws("/ws", open=lambda ws: None, sends=object)
        with pytest.raises(TypeError, match="object"):
            app.asyncapi_document(title="x", version="1")


class TestOfTypes:
    @pytest.mark.parametrize("kind", KINDS)
    def test_each(self, kind: Any) -> None:
        check(describe(Channel("/ws", receives=kind), Channel("/other/{id}", sends=kind)))

    def test_all_together(self) -> None:
        described = describe(*(Channel("/ws/{room}", kind, kind) for kind in KINDS))
        check(described)
        assert len(described["channels"]) == len(KINDS)

    def test_types_of_one_name(self) -> None:
        def another() -> Any:
            class Say(msgspec.Struct, tag="say", tag_field="type"):
                words: list[str]

            return Say

        described = describe(Channel("/a", Say), Channel("/b", another()))
        check(described)
        schemas = described["components"]["schemas"]
        assert len({json.dumps(schema) for schema in schemas.values() if "Say" in schema["title"]}) == 2

    def test_text_is_json_where_other_json_is_taken(self) -> None:
        described = describe(Channel("/ws", receives=Say | str))
        assert {m["contentType"] for m in described["components"]["messages"].values()} == {"application/json"}

    @pytest.mark.parametrize(("kind", "messages"), MESSAGES)
    @given(data=st.data())
    def test_a_schema_says_what_the_decoder_does(
        self, kind: Any, messages: st.SearchStrategy[Any], data: st.DataObject
    ) -> None:
        """The JSON of messages, whole and with one value changed: both accept it, or neither does."""
        described = describe(Channel("/ws", receives=kind))
        operation = described["operations"]["receive_ws"]
        payloads = [
            look_up(described, look_up(described, message["$ref"])["$ref"])["payload"]
            for message in operation["messages"]
        ]
        validator = jsonschema.Draft7Validator({"anyOf": payloads, "components": described["components"]})
        value = json.loads(msgspec.json.encode(data.draw(messages)))
        assert validator.is_valid(value), value
        changed = data.draw(changes(value))
        try:
            Decoder[Any](kind)(json.dumps(changed))
        except MessageError:
            assert not validator.is_valid(changed), changed
        else:
            assert validator.is_valid(changed), changed


def changes(value: Any) -> st.SearchStrategy[Any]:
    """`value` with one part replaced by something else, or removed."""
    # No floats: 1.0 is an integer in JSON Schema, but not for msgspec's strict mode.
    other: st.SearchStrategy[Any] = (
        st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=3) | st.just([]) | st.just({})
    )
    if isinstance(value, dict) and value:
        return st.sampled_from(sorted(value)).flatmap(
            lambda key: (
                changes(value[key]).map(lambda part: {**value, key: part})
                | st.just({k: v for k, v in value.items() if k != key})
            )
        )
    if isinstance(value, list | tuple) and value:
        return st.integers(0, len(value) - 1).flatmap(
            lambda place: (
                changes(value[place]).map(lambda part: [*value[:place], part, *value[place + 1 :]])
                | st.just([*value[:place], *value[place + 1 :]])
            )
        )
    return other
