"""Measuring retrieval: collections, measures equal to trec_eval's, experiments over many pipelines."""

from rag_plugin.evaluation.comparison import Comparison
from rag_plugin.evaluation.datasets import (
    Collection,
    Passage,
    load_beir,
    load_embedding_qa,
    load_labelled_rag,
)
from rag_plugin.evaluation.experiment import Experiment, evaluate
from rag_plugin.evaluation.measures import Measure, measure_run
from rag_plugin.evaluation.trec import read_qrels, read_run, write_qrels, write_run

__all__ = [
    "Collection",
    "Comparison",
    "Experiment",
    "Measure",
    "Passage",
    "evaluate",
    "load_beir",
    "load_embedding_qa",
    "load_labelled_rag",
    "measure_run",
    "read_qrels",
    "read_run",
    "write_qrels",
    "write_run",
]
