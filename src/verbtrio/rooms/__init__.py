"""Rooms: who is in one, and what they are told."""
