"""Both legs over one space of positions, as of one change of the truth.

A *position* is a node's place in memory, 0, 1, 2, … in the order of rows; both legs and every filter mask
share it. Legs are immutable: a writer derives the next ones and swaps them in, readers keep theirs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

import numpy as np

from rag_plugin.fusion.scale import SAMPLE, DenseScale, estimate_scale
from rag_plugin.store.dense.index import DenseIndex
from rag_plugin.store.growing_array import GrowingArray
from rag_plugin.store.id_hashes import IdHashes
from rag_plugin.store.sparse.index import SparseIndex
from rag_plugin.store.sparse.lexicon import AnalysedTexts
from rag_plugin.types import BoolArray, FloatArray, IntArray, Metric

_CACHED_MASKS = 64
"""Multi-tenant apps repeat a few filters; a mask takes a byte per node."""


class MaskCache:
    """Masks of filters over one numbering of positions, the least recently used dropped first."""

    def __init__(self) -> None:
        self._masks: OrderedDict[str, BoolArray] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str) -> BoolArray | None:
        """The mask of filter ``key``, if it is still here."""
        with self._lock:
            mask = self._masks.get(key)
            if mask is not None:
                self._masks.move_to_end(key)
            return mask

    def put(self, key: str, mask: BoolArray) -> None:
        """Keep ``mask``."""
        with self._lock:
            self._masks[key] = mask
            while len(self._masks) > _CACHED_MASKS:
                self._masks.popitem(last=False)


@dataclass(frozen=True)
class CorpusSample:
    """Some stored vectors, and how similarities are spread among them.

    Attributes:
        vectors: ``(s, d)``.
        scale: Estimated with these passages standing in for queries.
    """

    vectors: FloatArray
    scale: DenseScale


@dataclass(frozen=True)
class NewNodes:
    """Some nodes as the legs need them.

    Attributes:
        rows: ``(m,)`` ascending.
        ids: Id of each node and of its document.
        texts: Their embedded texts.
        vectors: ``(m, d)``, or None in a store without vectors.
    """

    rows: IntArray
    ids: Sequence[tuple[str, str | None]]
    texts: Sequence[str]
    vectors: FloatArray | None


@dataclass(frozen=True)
class Legs:
    """The caches of the truth at one change number.

    Attributes:
        change: The change these legs reflect.
        rows: Row of each position, ascending, ``(n,)`` int64.
        alive: Whether the node at each position still exists, ``(n,)``.
        ids: Hashes of the ids at each position.
        dense: The vectors, or None while the store holds none.
        sparse: The postings.
        masks: Filters compiled so far at this change.
    """

    change: int
    rows: GrowingArray[np.int64]
    alive: BoolArray
    ids: IdHashes
    dense: DenseIndex | None
    sparse: SparseIndex
    masks: MaskCache = field(default_factory=MaskCache, compare=False, repr=False)
    _sample: list[CorpusSample] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def empty(cls, sparse: SparseIndex, *, change: int = 0) -> Legs:
        """Legs over no nodes."""
        rows = GrowingArray(np.empty(0, np.int64))
        return cls(change, rows, np.empty(0, bool), IdHashes.empty(), None, sparse)

    @property
    def size(self) -> int:
        """Positions in use, dead ones included."""
        return self.rows.size

    @property
    def live_count(self) -> int:
        """Nodes that exist."""
        return self.sparse.live_count

    @property
    def dead_share(self) -> float:
        """Share of positions whose node is gone."""
        return 1.0 - self.live_count / self.size if self.size else 0.0

    def positions_of(self, rows: IntArray) -> IntArray:
        """Positions of those ``rows`` that are known and alive, ascending."""
        known = self.rows.items
        places = np.searchsorted(known, np.sort(rows))
        places = places[places < len(known)]
        places = places[np.isin(known[places], rows)]
        return places[self.alive[places]]

    def added(self, nodes: NewNodes, texts: AnalysedTexts, metric: Metric) -> Legs:
        """Legs with new nodes behind the present ones.

        Args:
            nodes: Their rows are above every row so far.
            texts: Their texts, analysed by ``sparse.lexicon``.
            metric: Of the dense leg, which the first vectors create.
        """
        if len(nodes.rows) == 0:
            return self
        dense = self.dense
        if nodes.vectors is not None:
            dense = (dense or DenseIndex.empty(nodes.vectors.shape[1], metric)).append(nodes.vectors)
        return Legs(
            self.change,
            self.rows.appended(nodes.rows),
            np.concatenate([self.alive, np.ones(len(nodes.rows), bool)]),
            self.ids.appended(nodes.ids),
            dense,
            self.sparse.append_numbered(*texts),
        )

    def removed(self, rows: IntArray) -> Legs:
        """Legs without ``rows``: their positions stay behind as tombstones."""
        positions = self.positions_of(rows)
        if len(positions) == 0:
            return self
        alive = self.alive.copy()
        alive[positions] = False
        return replace(self, alive=alive, sparse=self.sparse.remove(positions))

    def corpus_sample(self) -> CorpusSample:
        """Stored vectors that tell how similarities are spread, the same ones for the same legs."""
        if not self._sample:
            vectors = np.empty((0, 0), np.float32)
            scale = DenseScale(0.0, 0.0)
            if self.dense is not None:
                vectors = self.dense.scale_sample(SAMPLE, self.alive)
                scale = estimate_scale(vectors, self.dense.metric)
            self._sample.append(CorpusSample(vectors, scale))
        return self._sample[0]

    def at(self, change: int) -> Legs:
        """The same legs, known to reflect ``change``."""
        return replace(self, change=change, masks=MaskCache(), _sample=[])

    def compacted(self) -> Legs:
        """Legs without tombstones, renumbered."""
        return Legs(
            self.change,
            GrowingArray(self.rows.items[self.alive]),
            np.ones(self.live_count, bool),
            self.ids.compacted(self.alive),
            None if self.dense is None else self.dense.compacted(self.alive),
            self.sparse.compacted(self.alive),
        )
