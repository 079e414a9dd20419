"""A peer's bytes: the handshake, the codec, the transports, and their readers."""
