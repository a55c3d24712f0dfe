"""Local models: where their files lie, what is known about them, and one shared ONNX runner for each."""

from __future__ import annotations

from rag_plugin.models.files import ModelFiles, ModelKind, locate
from rag_plugin.models.runner import ModelRunner, runner_for

__all__ = ["ModelFiles", "ModelKind", "ModelRunner", "locate", "runner_for"]
