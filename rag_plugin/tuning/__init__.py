"""Fitting fusion to labels: search, cross-validation, a significance test, and labels made from the corpus."""

from rag_plugin.tuning.fitting import tune
from rag_plugin.tuning.generation import LabelledQueries, generate_queries
from rag_plugin.tuning.report import TuningReport

__all__ = ["LabelledQueries", "TuningReport", "generate_queries", "tune"]
