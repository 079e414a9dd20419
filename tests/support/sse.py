"""A reader of server-sent events, written from the HTML standard (section 9.2.6), not from the code it tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Received:
    """An event as `EventSource` dispatches it."""

    event: str
    data: str
    id: str


def parse(stream: bytes) -> list[Received]:
    """What a client dispatches for `stream`. (Its last id stays from event to event, as the standard has it.)"""
    text = stream.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    events: list[Received] = []
    last_id, event, data = "", "", ""
    for line in text.split("\n")[:-1]:
        if not line:
            if data:
                events.append(Received(event or "message", data.removesuffix("\n"), last_id))
            event, data = "", ""
            continue
        name, colon, value = line.partition(":")
        if colon and not name:
            continue
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data += value + "\n"
        elif name == "id" and "\0" not in value:
            last_id = value
    return events
