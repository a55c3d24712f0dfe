"""The durable store: one truth in SQLite, everything else a cache of it."""
