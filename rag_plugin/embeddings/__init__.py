"""Embedding models: local and fast by default, any LlamaIndex model besides."""
