"""Training: options, the loop, and what becomes of it."""
