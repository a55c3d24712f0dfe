"""The only truth of a store: nodes, vectors and the log of changes in SQLite, and what writes and reads them."""
