"""Validation: a type says what a message may be, and anything else never reaches the handler."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples.page

from examples.page import add_page
from verbtrio import App, Limits, WebSocket

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=30)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class Message(msgspec.Struct, tag_field="type", forbid_unknown_fields=True):
    """The field `type` tells the messages apart."""


class Rename(Message, tag="rename"):
    """Change the sender's name."""

    name: Name


class Say(Message, tag="say"):
    text: Text


class Point(msgspec.Struct):
    x: Annotated[int, msgspec.Meta(ge=0, lt=1000)]
    y: Annotated[int, msgspec.Meta(ge=0, lt=1000)]


class Draw(Message, tag="draw"):
    points: Annotated[list[Point], msgspec.Meta(min_length=2, max_length=100)]
    colour: str = "black"


class Said(Message, tag="said"):
    by: str
    text: str


class Drawn(Message, tag="drawn"):
    by: str
    points: list[Point]
    colour: str


app = App(limits=Limits(max_bad_messages=20))
app.asyncapi(title="Blackboard", version="1.0.0")  # /asyncapi.json, with the messages' JSON Schemas


@app.ws("/ws/:board", sends=Said | Drawn)
async def blackboard(ws: WebSocket[Rename | Say | Draw], board: str) -> None:
    """A blackboard for several people."""
    name = "Anonymous"
    async with ws.join(board) as members:
        async for message in ws:
            match message:
                case Rename():
                    name = message.name
                case Say():
                    members.broadcast(Said(name, message.text), exclude=ws)
                case Draw():
                    members.broadcast(Drawn(name, message.points, message.colour), exclude=ws)


add_page(app, __file__, Say, Draw, blackboard)

if __name__ == "__main__":
    app.listen()
