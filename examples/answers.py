"""Answers: a method for each type of message, whose result goes back to the client. It carries the message's `ref`, so
the client knows what it answers. Numbers are fractions, for which JSON has no form."""

import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples.page

from examples.page import add_page
from verbtrio import App, WebSocket, on


class Message(msgspec.Struct, tag_field="type", kw_only=True):
    """The field `type` tells the messages apart. Each may have a `ref`."""

    ref: str | int | None = None


class Add(Message, tag="add"):
    number: Fraction


class Divide(Message, tag="divide"):
    by: Fraction


class Clear(Message, tag="clear"):
    """Start again from 0. There is no answer."""


class Result(Message, tag="result"):
    value: Fraction


class Failed(Message, tag="failed"):
    why: str


def to_json(value: Any) -> Any:
    """What is sent in place of a value that JSON has no form for."""
    if isinstance(value, Fraction):
        return str(value)
    raise TypeError(f"no JSON for {value!r}")


def from_json(kind: Any, value: Any) -> Any:
    """A value of a type that JSON has no form for. The client is sent the text of a `ValueError`."""
    # Not "1e999999999": it is short, but as a fraction it has a thousand million digits.
    if kind is not Fraction or type(value) not in (str, int) or not re.fullmatch("[-0-9/.]{1,20}", str(value)):
        raise ValueError('a number looks like 5 or "1/3", of 20 characters at most')
    try:
        return Fraction(value)
    except ZeroDivisionError as error:
        raise ValueError(str(error)) from error


app = App(encode=to_json, decode=from_json)


@app.ws("/ws", sends=Result | Failed)
class Calculator:
    """Exact to the last digit. Each client has its own."""

    def __init__(self) -> None:
        self.value = Fraction(0)

    def open(self, ws: WebSocket) -> Result:
        return Result(value=self.value)

    @on(Add)
    def add(self, ws: WebSocket, message: Add) -> Result:
        self.value += message.number
        return Result(value=self.value)

    @on(Divide)
    async def divide(self, ws: WebSocket, message: Divide) -> Result | Failed:
        if message.by == 0:
            return Failed(why="nothing can be divided by 0")
        self.value /= message.by
        return Result(value=self.value)

    @on(Clear)
    def clear(self, ws: WebSocket, message: Clear) -> None:
        self.value = Fraction(0)


add_page(app, __file__, Calculator)

if __name__ == "__main__":
    app.listen()
