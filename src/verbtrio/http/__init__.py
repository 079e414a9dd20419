"""HTTP responses that are made while they are sent: streams, server-sent events, and who receives a room by them."""
