"""From a Table to a Batch: reading, cache, framing, sampling, collation, and `modalift check`."""
