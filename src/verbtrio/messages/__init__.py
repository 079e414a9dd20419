"""What a message is: encoded once on its way out, decoded to what a handler takes on its way in. Pure."""
