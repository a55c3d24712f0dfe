"""The durable store: one truth in SQLite, everything else a cache of it.

- `hybrid_store`, `qdrant_store`: the LlamaIndex vector stores. What both are: `searchable_store`, `queries`.
- `truth/`: the database, its rows, and what writes and reads them.
- `dense/`, `sparse/`: the two legs; `analysis/`: from text to the terms that the sparse leg counts.
- `metadata/`: filters and the index that answers them.
- `engine` keeps the truth and the legs in step; `view` is what one query sees of them; `hybrid_search` ranks.
"""
