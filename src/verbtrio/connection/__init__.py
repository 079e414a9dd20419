"""A WebSocket connection: its life, its handler, its queues, its end."""
