"""An adapter on disk: written byte by byte the same, read as a stranger's file."""
