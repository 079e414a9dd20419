"""What an application says by ASGI's WebSocket messages, checked. Pure."""

from __future__ import annotations

import logging

from starlette.types import Message

from verbtrio.base.close import sendable_close
from verbtrio.messages.frame import Frame, encode

logger = logging.getLogger("verbtrio.asgi")


def frame_of(message: Message) -> Frame:
    """The frame of a `websocket.send`.

    Raises:
        TypeError: neither `text` nor `bytes` has the type that ASGI requires.
        UnicodeEncodeError: `text` holds a lone surrogate.
    """
    data, text = message.get("bytes"), message.get("text")
    if isinstance(data, bytes | bytearray | memoryview) or (data is None and isinstance(text, str)):
        return encode(text if data is None else data)
    kinds = f"text: {type(text).__name__}, bytes: {type(data).__name__}"
    raise TypeError(f"websocket.send takes 'bytes' (bytes) or 'text' (str), not {kinds}")


def close_of(message: Message) -> tuple[int, str]:
    """The code and reason of a `websocket.close`, as they can be sent. Logs a line where the code could not."""
    given = message.get("code")
    code, reason = sendable_close(given, message.get("reason"))
    if given is not None and given != code:
        logger.warning("the application closed a WebSocket with %.100r, which can't be sent: %d is sent", given, code)
    return code, reason
