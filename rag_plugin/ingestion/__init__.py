"""Documents to nodes to vectors to the store."""
