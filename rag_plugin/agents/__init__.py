"""Retrieval as agents call it: a LlamaIndex tool, and an MCP server for every other agent."""
