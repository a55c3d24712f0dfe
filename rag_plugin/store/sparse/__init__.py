"""The sparse leg: exact BM25 over a live corpus."""
