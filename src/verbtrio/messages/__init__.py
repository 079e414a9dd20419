"""Messages: encoded once on their way out, decoded to what a handler takes on their way in. Pure."""
