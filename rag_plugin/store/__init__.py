"""The durable store: one truth in SQLite, everything else a cache of it.

- `hybrid_store`, `qdrant_store`: the LlamaIndex vector stores. What both are: `searchable_store`, `queries`.
- `truth/`: the database, its rows, and what writes and reads them.
- `dense/`, `sparse/`: the two legs; `analysis/`: from text to the terms that the sparse leg counts.
- `metadata/`: filters and the index that answers them.
- `engine` keeps the truth and the legs in step; `view` is what one query sees of them; `hybrid_search` ranks, with
  `side_by_side` and `diversity`.
- `legs` are both legs over one space of positions; `leg_source` and `snapshots` bring them back when a store is opened,
  `dense_upkeep` keeps the dense leg's codes in step beside the writer.
- `movable_store`, `backups`, `stock_storage`: into and out of a store; `audit`: is it whole; `tuned`: what it learned.
"""
