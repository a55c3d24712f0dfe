"""Servers on loopback that speak the protocols of OpenAI, Cohere and Voyage, and refuse what those would refuse.

Sources of shapes and limits: OpenAI's API reference, "Create embeddings" (2,048 inputs, none empty, ``dimensions`` only
for text-embedding-3); Cohere's, "v2/embed" (96 texts, ``input_type`` required since v3); Voyage's, "Text embeddings"
(1,000 inputs, ``input_type`` query or document, four dimensions).
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from counting_model import vector_of
from provider_server import ProviderServer, check_keys, check_texts, require


def encoded(vector: list[float], encoding: str) -> Any:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode() if encoding == "base64" else vector


class OpenAIServer(ProviderServer):
    path = "/v1/embeddings"
    largest = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}

    def answer(self, body):
        check_keys(body, {"input", "model"}, {"encoding_format", "dimensions", "user"})
        check_texts(body["input"], 2048)
        require(all(body["input"]), "an input is empty")
        require(body["model"] in self.largest, "no such model", 404)
        dimensions = body.get("dimensions", self.largest[body["model"]])
        require("dimensions" not in body or "-3-" in body["model"], "dimensions is not for this model")
        require(1 <= dimensions <= self.largest[body["model"]], "dimensions out of range")
        encoding = body.get("encoding_format", "float")
        return {
            "object": "list",
            "model": body["model"],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": encoded(vector_of(body["model"], "any", text, dimensions), encoding),
                }
                for index, text in enumerate(body["input"])
            ],
        }

    def refusal(self, message):
        return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


class CohereServer(ProviderServer):
    path = "/v2/embed"

    def refusal(self, message):
        return {"message": message}

    def answer(self, body):
        check_keys(body, {"model", "texts", "input_type", "embedding_types"}, {"truncate"})
        check_texts(body["texts"], 96)
        require(body["model"] in {"embed-english-v3.0", "embed-multilingual-v3.0"}, "no such model", 404)
        roles = {"search_query", "search_document", "classification", "clustering", "image"}
        require(body["input_type"] in roles, "input_type is unknown")
        require(body["embedding_types"] == ["float"], "float is what is understood here")
        require(body.get("truncate", "END") in {"NONE", "START", "END"}, "truncate is unknown")
        vectors = [vector_of(body["model"], body["input_type"], text, 1024) for text in body["texts"]]
        return {
            "id": "1",
            "embeddings": {"float": vectors},
            "texts": body["texts"],
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 1}},
            "response_type": "embeddings_by_type",
        }


class VoyageServer(ProviderServer):
    path = "/v1/embeddings"

    def refusal(self, message):
        return {"detail": message}

    def answer(self, body):
        nullable = {"input_type", "truncation", "output_dimension", "output_dtype", "encoding_format"}
        check_keys(body, {"input", "model"}, nullable)
        check_texts(body["input"], 1000)
        require(body["model"] in {"voyage-3.5", "voyage-3.5-lite", "voyage-3-large"}, "no such model")
        require(body.get("input_type") in {None, "query", "document"}, "input_type is unknown")
        require(
            body.get("output_dimension") in {None, 256, 512, 1024, 2048}, "output_dimension is not offered"
        )
        require(body.get("truncation") in {None, True, False}, "truncation is no boolean")
        dimensions = body.get("output_dimension") or 1024
        encoding = body.get("encoding_format") or "float"
        role = body.get("input_type") or "none"
        return {
            "object": "list",
            "model": body["model"],
            "usage": {"total_tokens": 1},
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": encoded(vector_of(body["model"], role, text, dimensions), encoding),
                }
                for index, text in enumerate(body["input"])
            ],
        }
