"""The example answers: each question is answered with its `ref`, and exact to the last digit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trio.abc import Clock

from examples.answers import app
from tests.support.memory import serving


async def conversation(*messages: Any) -> list[Any]:
    """Send the messages one by one; return the answers, `None` for a message that has none."""
    heard = []
    async with serving(app) as service:
        client = await service.connect()
        assert json.loads(await client.get_message()) == {"type": "result", "value": "0", "ref": None}
        for message in messages:
            await client.send_message(json.dumps(message))
            heard.append(json.loads(await client.get_message()) if message != {"type": "clear"} else None)
        await client.aclose()
    return heard


async def test_a_calculation(autojump_clock: Clock) -> None:
    heard = await conversation(
        {"type": "add", "number": "1/3", "ref": "a"},
        {"type": "divide", "by": 7, "ref": 2},
        {"type": "clear"},
        {"type": "add", "number": "-0.5"},
    )
    assert heard == [
        {"type": "result", "value": "1/3", "ref": "a"},
        {"type": "result", "value": "1/21", "ref": 2},
        None,
        {"type": "result", "value": "-1/2", "ref": None},
    ]


async def test_what_cannot_be_computed(autojump_clock: Clock) -> None:
    (answer,) = await conversation({"type": "divide", "by": 0, "ref": "a"})
    assert answer == {"type": "failed", "why": "nothing can be divided by 0", "ref": "a"}


SHORT = ("1e999999999", "1e-999999999", "1E9", "\u0661", "1_0", " 1")
"""Short numbers that must be refused: some would take minutes."""


@pytest.mark.parametrize("number", ["1/0", "x", "1" * 21, [], 10**30, None, True, *SHORT])
async def test_no_numbers(number: Any, autojump_clock: Clock) -> None:
    (answer,) = await conversation({"type": "add", "number": number, "ref": 1})
    assert (answer["type"], answer["ref"]) == ("error", 1)
    assert answer["message"].endswith(" - at `$.number`")
