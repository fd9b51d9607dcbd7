"""From a Table to a Batch: reading, cache, framing, order, collation, check."""
