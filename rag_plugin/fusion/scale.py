"""How similarities are spread over a corpus, estimated without any query."""

from __future__ import annotations

import numpy as np

from rag_plugin.fusion.auto import DenseScale, similarities
from rag_plugin.types import FloatArray, Metric

_PSEUDO_QUERIES = 64


def estimate_scale(sample: FloatArray, metric: Metric) -> DenseScale:
    """Spread of similarities, with passages of the sample standing in for queries.

    Args:
        sample: ``(n, d)`` stored vectors, spread evenly over the corpus.
        metric: The similarity they are compared by.
    """
    if len(sample) < 3:
        return DenseScale(0.0, 0.0)
    chosen = np.unique(np.linspace(0, len(sample) - 1, min(_PSEUDO_QUERIES, len(sample))).astype(np.int64))
    means, stds = [], []
    for index in chosen.tolist():
        others = similarities(sample[index], np.delete(sample, index, axis=0), metric)
        means.append(float(others.mean()))
        stds.append(float(others.std()))
    return DenseScale(float(np.mean(means)), float(np.mean(stds)))
