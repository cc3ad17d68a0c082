"""Several adapters become one, with or without their base."""
