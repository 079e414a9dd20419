"""The example validation: what reaches the handler, what does not, and the AsyncAPI document."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trio.abc import Clock

from examples.validation import app
from tests.support.memory import serving


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("{", "Invalid JSON format"),
        ("[]", "Invalid JSON format"),
        ({"type": "shout"}, "Invalid value 'shout' - at `$.type` (known: 'rename', 'say', 'draw')"),
        ({"type": "say"}, "Object missing required field `text`"),
        ({"type": "say", "text": ""}, "Expected `str` of length >= 1 - at `$.text`"),
        ({"type": "say", "text": "a", "to": 1}, "Object contains unknown field `to`"),
        ({"type": "rename", "name": "x" * 31}, "Expected `str` of length <= 30 - at `$.name`"),
        ({"type": "draw", "points": []}, "Expected `array` of length >= 2 - at `$.points`"),
        (
            {"type": "draw", "points": [{"x": 1, "y": 2}, {"x": 1}]},
            "Object missing required field `y` - at `$.points[1]`",
        ),
        ({"type": "draw", "points": [{"x": 1, "y": 2}, {"x": 1, "y": -1}]}, "Expected `int` >= 0 - at `$.points[1].y`"),
        (
            {"type": "draw", "points": [{"x": 1, "y": 2}, {"x": 1, "y": "2"}]},
            "Expected `int`, got `str` - at `$.points[1].y`",
        ),
    ],
)
async def test_what_is_answered(message: Any, problem: str, autojump_clock: Clock) -> None:
    async with serving(app) as service:
        client = await service.connect("/ws/red")
        await client.send_message(message if isinstance(message, str) else json.dumps(message))
        assert json.loads(await client.get_message()) == {"type": "error", "message": problem}
        await client.aclose()


async def test_what_gets_through(autojump_clock: Clock) -> None:
    async with serving(app) as service:
        ana, ben = await service.connect("/ws/red"), await service.connect("/ws/red")
        points = [{"x": 0, "y": 0}, {"x": 999, "y": 999}]
        for message in (
            {"type": "say", "text": "hi"},
            {"type": "rename", "name": "Ana"},
            {"type": "draw", "points": points},
        ):
            await ana.send_message(json.dumps(message))
        assert json.loads(await ben.get_message()) == {"type": "said", "by": "Anonymous", "text": "hi"}
        assert json.loads(await ben.get_message()) == {
            "type": "drawn",
            "by": "Ana",
            "points": points,
            "colour": "black",
        }
        await ana.aclose()
        await ben.aclose()


async def test_too_much_nonsense(autojump_clock: Clock) -> None:
    async with serving(app) as service:
        client = await service.connect("/ws/red")
        for _ in range(21):
            await client.send_message("{")
            await client.get_message()
        await service.wait_ended(1)
        assert app.statistics().ended == {"invalid": 1}


def test_its_description() -> None:
    described = app.asyncapi_document(title="Blackboard", version="1.0.0")
    assert set(described["components"]["messages"]) == {"Rename", "Say", "Draw", "Said", "Drawn", "ErrorMessage"}
    name = described["components"]["schemas"]["Rename"]["properties"]["name"]
    assert name == {"type": "string", "minLength": 1, "maxLength": 30}
