"""Metadata filters, and the index that answers them."""
