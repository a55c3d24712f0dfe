"""Vector codes in inverted lists: every kind but the graph.

A flat index of codes is an inverted file with one list. FAISS's flat fast-scan indexes refuse selectors and
shift ids on removal, their inverted forms take selectors and keep ids, and with one list both scan the same
codes in the same time (100,000 x 384, 4-bit codes, one run: 0.67 and 0.68 ms). So one family serves all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import faiss
import numpy as np

from rag_plugin.store.dense.effort import SearchEffort
from rag_plugin.types import FloatArray, IntArray, Metric

_PROBES = 64
"""Lists read per query where nothing tells how many are needed: with √n/4 lists (see :func:`lists_of`) a query reads
256·√n codes, a quarter of 1,000,000, and recall@100 stays above .98; tests/benchmarks/dense.py plots it."""

_NEAR = 0.45
_LEAST_PROBES, _MOST_PROBES = 16, 96
"""Which lists are read where distances tell: those whose centre is at most 1 + ``_NEAR`` times as far (squared) as the
nearest one, as in Chen et al., SPANN, NeurIPS 2021, section 3.3; at least and at most so many. Real questions over
1,000,000: a fifth fewer codes than of 64 lists on average, two fifths at the median, and .998 of the true hundred in
them instead of .991; vectors between subjects, which no list is near to, .986 instead of .983, of as many codes."""

_NEAR_UP_TO = 2_000
"""Candidates up to which that holds: it was measured for 1,000, a top hundred. The thousand nearest lie in more lists
than the ten nearest; for more candidates ``_PROBES`` lists are read, as where distances don't tell."""

_NO_LIST = -1
"""What FAISS passes over among the lists to be read."""

_GATHERED = 4_096
_GATHERED_SHARE = 40
"""Comparing so many allowed vectors, or one of 40 of all, takes 0.2 µs each at 384 dimensions and is exact. Behind a
filter that keeps fewer most lists have to be read: a query of 1,000,000 took 15 ms, and 7 where they are compared."""

_SAMPLE_PER_LIST = 128
"""Training rows per list: FAISS asks for 39 at least and reads 256 at most."""
_SAMPLE_AT_LEAST = 8_192
"""16 centroids per sub-quantiser are learnt from 4,096 rows (FAISS's own limit); twice that for good measure."""


@dataclass(frozen=True)
class InvertedCodes:
    """Codes of one form in inverted lists.

    Attributes:
        form: FAISS's name of the code, ``{half}`` standing for half of the dimension.
        partitioned: Whether there are several lists; else a query reads every code.
        depth_per_hit: Candidates that are scored exactly, per hit wanted.
        least_depth: Candidates that are scored exactly, at least.
    """

    form: str
    partitioned: bool
    depth_per_hit: int
    least_depth: int
    metrics: tuple[Metric, ...] = ("cosine", "dot", "l2")
    trains: bool = True

    def blank(self, dimension: int, size: int, metric: Metric) -> faiss.Index:
        """An index that is still to be trained, for about ``size`` vectors.

        Cosine compares vectors of length 1, where L2 ranks alike and its 8-bit look-up tables lose less:
        recall@100 at 400 rescored .998 instead of .985 (100,000 x 384, PQ192x4fs).
        """
        pieces = dimension // 2 if dimension % 2 == 0 else dimension
        lists = lists_of(size) if self.partitioned else 1
        faiss_metric = faiss.METRIC_INNER_PRODUCT if metric == "dot" else faiss.METRIC_L2
        return faiss.index_factory(dimension, f"IVF{lists},{self.form.format(half=pieces)}", faiss_metric)

    def sample_size(self, size: int) -> int:
        """How many rows to train on."""
        return max(_SAMPLE_AT_LEAST, _SAMPLE_PER_LIST * (lists_of(size) if self.partitioned else 1))

    def gathered(self, size: int) -> int:
        """Up to how many allowed vectors comparing each of them beats reading codes."""
        return max(_GATHERED, size // _GATHERED_SHARE)

    def depth(self, k: int, effort: SearchEffort) -> int:
        """How many candidates to score exactly for ``k`` hits."""
        return max(k, effort.rescore or max(self.least_depth, self.depth_per_hit * k))

    def search(
        self,
        index: faiss.Index,
        queries: FloatArray,
        depth: int,
        effort: SearchEffort,
        share: float,
        selector: faiss.IDSelector | None,
    ) -> IntArray:
        """Ids of the ``depth`` nearest codes to each query among the ``share`` of them that ``selector`` lets through.

        The fewer vectors pass, the more lists hold the same number of them: lists grow with 1/√share.
        """
        if (
            effort.nprobe
            or selector is not None
            or index.metric_type != faiss.METRIC_L2
            or index.nlist <= _PROBES
            or depth > _NEAR_UP_TO
        ):
            probes = min(effort.nprobe or math.ceil(_PROBES / math.sqrt(share)), index.nlist)
            parameters = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
            found: IntArray = index.search(queries, depth, params=parameters)[1]
            return found
        distances, lists = index.quantizer.search(queries, min(_MOST_PROBES, index.nlist))
        is_near = distances <= (1.0 + _NEAR) * distances[:, :1]
        is_near[:, :_LEAST_PROBES] = True
        lists[~is_near] = _NO_LIST
        probes = int(is_near.sum(axis=1).max())
        return _search_lists(index, queries, depth, lists[:, :probes], distances[:, :probes])


def _search_lists(
    index: faiss.IndexIVF, queries: FloatArray, depth: int, lists: IntArray, distances: FloatArray
) -> IntArray:
    """Ids of the ``depth`` nearest codes to each query among those of its ``lists``, ``(m, probes)``."""
    # The method that Python is shown takes the number of lists from the index, which others search at the same time.
    lists, distances = np.ascontiguousarray(lists), np.ascontiguousarray(distances)
    scores, found = np.empty((len(queries), depth), np.float32), np.empty((len(queries), depth), np.int64)
    pointers = [faiss.swig_ptr(array) for array in (lists, distances, scores, found)]
    parameters = faiss.SearchParametersIVF(nprobe=lists.shape[1])
    index.search_preassigned_c(len(queries), faiss.swig_ptr(queries), depth, *pointers, False, parameters)
    return found


def lists_of(size: int) -> int:
    """How many lists for ``size`` vectors: the power of two next to √size/4.

    Few, because reading codes is cheap and every list left unread costs recall: at 1,000,000, 128 of 1,024
    lists have to be read for the recall@100 (.993) that 64 of 256 give.
    """
    return 1 << max(0, round(math.log2(max(1.0, math.sqrt(size) / 4))))
