"""Fitting fusion and reranking to labels by cross-validation and a test, and labels made from the corpus."""

from rag_plugin.tuning.fitting import tune
from rag_plugin.tuning.generation import LabelledQueries, generate_queries
from rag_plugin.tuning.report import RerankReport, TuningReport

__all__ = ["LabelledQueries", "RerankReport", "TuningReport", "generate_queries", "tune"]
