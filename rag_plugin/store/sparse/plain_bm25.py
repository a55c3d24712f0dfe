"""BM25 the slow way, for audits: nothing here is shared with the sparse leg it judges."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import rank_bm25

from rag_plugin.store.sparse.bm25 import Bm25
from rag_plugin.types import DoubleArray


class PlainBm25:
    """Scores of a corpus by ``rank_bm25`` itself, or for ``lucene`` by its formula, term by term.

    Args:
        bm25: Variant and parameters.
        corpus: The terms of every passage, repeats included.
    """

    def __init__(self, bm25: Bm25, corpus: Sequence[Sequence[str]]) -> None:
        self._bm25 = bm25
        self._counts = [Counter(terms) for terms in corpus]
        self._lengths = [len(terms) for terms in corpus]
        self._average = sum(self._lengths) / max(1, len(corpus))
        self._holders = Counter(term for counts in self._counts for term in counts)
        self._reference = None
        if any(self._lengths) and bm25.variant != "lucene":
            self._reference = {
                "okapi": lambda: rank_bm25.BM25Okapi(corpus, k1=bm25.k1, b=bm25.b, epsilon=bm25.epsilon),
                "l": lambda: rank_bm25.BM25L(corpus, k1=bm25.k1, b=bm25.b, delta=bm25.delta),
                "plus": lambda: rank_bm25.BM25Plus(corpus, k1=bm25.k1, b=bm25.b, delta=bm25.delta),
            }[bm25.variant]()

    def scores(self, query: Sequence[str]) -> DoubleArray:
        """The score of every passage, ``(n,)``; 0 for passages that hold no query term."""
        holds = np.array([any(term in counts for term in query) for counts in self._counts], bool)
        if not holds.any():
            return np.zeros(len(self._counts))
        if self._reference is not None:
            return np.where(holds, self._reference.get_scores(list(query)), 0.0)
        return np.array([self._lucene(index, query) for index in range(len(self._counts))])

    def _lucene(self, index: int, query: Sequence[str]) -> float:
        """``Σ ln(1 + (N − df + .5)/(df + .5)) · tf/(tf + k1·(1 − b + b·dl/avgdl))``, Lucene's since version 8."""
        counts, size = self._counts[index], len(self._counts)
        score = 0.0
        for term in query:
            frequency = counts.get(term, 0)
            if frequency:
                holders = self._holders[term]
                norm = self._bm25.k1 * (
                    1 - self._bm25.b + self._bm25.b * self._lengths[index] / self._average
                )
                idf = math.log(1 + (size - holders + 0.5) / (holders + 0.5))
                score += idf * frequency / (frequency + norm)
        return score
