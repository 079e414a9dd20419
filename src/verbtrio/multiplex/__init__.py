"""Clients that have many rooms on one connection, by subscriptions, and call functions of the application."""
