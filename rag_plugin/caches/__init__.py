"""Caches of bytes: in memory, in a SQLite file, in Redis. A cache that is down costs speed, never an answer."""
