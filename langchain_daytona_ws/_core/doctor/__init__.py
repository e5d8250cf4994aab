"""What a diagnosis finds, and how the facts of a sandbox are judged. Pure."""
