"""The Centrifuge client protocol (version 2): its commands, replies, codes and encodings."""
