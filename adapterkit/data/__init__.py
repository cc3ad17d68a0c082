"""From rows to tokens: reading, formats, rendering, batching. Only ``batching`` imports torch."""
