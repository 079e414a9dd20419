"""What all connections of an app share: the registry, users, figures, the drain."""
