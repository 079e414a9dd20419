"""An app's figures at one moment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statistics:
    """An app's figures at one moment. Each process has its own."""

    connections: int
    """WebSocket connections that are open."""
    rooms: int
    memberships: int
    """Subscriptions of clients of `app.centrifuge` are among them."""
    users: int
    ended: dict[str, int]
    """How many connections and event streams have ended so far, or begun to, by `Cause`."""
    streams: int
    """Event streams of `app.sse` routes, and clients of `app.centrifuge` that have no WebSocket."""
    opened: int
    """How many connections and event streams there have been so far, the present ones included."""
    refused: dict[int, int]
    """Upgrade requests that were not granted so far, by the status of their answer. Counted by the app whose lifespan
    the server enters, over the take-over alone (elsewhere the server answers)."""
    received: int
    """Messages from clients so far: all of them, refused ones and JSON pongs too. (One of a client of `app.centrifuge`
    may have several commands.)"""
    sent: int
    """Messages for clients so far, one for each receiver: written, or queued for one that reads slowly."""
    dropped: int
    """Of the messages for clients, those dropped or replaced by `Limits.backlog_policy`, or whose `ttl` was over."""
    invalid: int
    """Of the messages from clients, those that were not what the handler takes: answered with an error message."""
    room_tasks: int
    """Tasks of rooms that are running: that have begun, and have not ended."""
    room_task_failures: int
    """Runs of rooms' tasks so far that have failed, or have not started in time. Each is in the log."""
    resumes: int
    """Joins so far that went on from a position (`ws.join(since=...)`, `Last-Event-ID`, a subscription that recovers),
    or could not."""
    history_gaps: int
    """Of those, how many could not, since the history did not reach back so far."""
    missed: int
    """How often so far messages for a room may have been lost on the way here, so that its members here have not got
    them: after the broker was away, mostly. 0 with `MemoryBroker`."""
    broker_connected: bool
    """Whether the broker can be reached now. Always with `MemoryBroker`."""
    broker_dropped: int
    """Broadcasts so far that other processes have not got, since the broker was away or too slow."""
    histories: int
    """Rooms that have a history now. With the next two, what the app's broker keeps in this process's memory: apps that
    share a `MemoryBroker` have the same figures."""
    history_bytes: int
    """What all histories cost, as `Limits.max_history_bytes` counts it."""
    presences: int
    """Users who are present in rooms (`app.rooms(presence=...)`): in each of them once, until their grace is over."""
