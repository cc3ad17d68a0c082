"""The command line: data on stdout, talk on stderr, exit code 2 for a misuse."""

from .main import main

__all__ = ["main"]
