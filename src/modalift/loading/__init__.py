"""From a Table to a Batch: reading, cache, sampling, transforms, doctor."""
