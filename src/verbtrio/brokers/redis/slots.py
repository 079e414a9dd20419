"""To which of a cluster's slots a key or a channel belongs. Pure."""

from __future__ import annotations

from binascii import crc_hqx

SLOTS = 16_384
"""How many there are."""


def slot_of(key: bytes) -> int:
    """The slot of a key: a checksum (CRC-16/XMODEM) of its hash tag, which is what stands between its first `{` and the
    next `}`. Without one, or with an empty one, it is the checksum of all of it."""
    start = key.find(b"{") + 1
    if start and (end := key.find(b"}", start)) > start:
        key = key[start:end]
    return crc_hqx(key, 0) % SLOTS
