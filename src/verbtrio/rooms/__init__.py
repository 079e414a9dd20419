"""Rooms: who is in one, what they are told and have missed, and the tasks that rooms run."""
