"""HTTP responses that are produced while they are sent: streams, server-sent events, and subscribers of a room."""
