"""The real LLM server, for the tests of this folder."""

from llm_server import llm_server

__all__ = ["llm_server"]
