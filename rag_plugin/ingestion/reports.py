"""What an ingestion tells: while it runs, and when it is done."""

from __future__ import annotations

from dataclasses import dataclass

MOST_CUT_NODES = 100
"""Nodes named in a report: enough to see what they have in common."""


@dataclass(frozen=True)
class FailedDocument:
    """A document that was not taken in; what the store held of it is still there.

    Attributes:
        doc_id: The document's id.
        reason: What went wrong.
    """

    doc_id: str
    reason: str


@dataclass(frozen=True)
class IngestProgress:
    """How far an ingestion is, after each batch.

    Attributes:
        documents: Documents done, whatever became of them.
        total: Documents in all, None when it cannot be known.
        nodes: Nodes those documents have.
        embedded: Nodes that had to be embedded.
    """

    documents: int
    total: int | None
    nodes: int
    embedded: int


@dataclass(frozen=True)
class IngestReport:
    """What an ingestion did, in documents unless said otherwise.

    Attributes:
        added: New to the store.
        updated: In the store before, with another text, metadata or vector.
        skipped: In the store before, equal in every part; nothing was written for them.
        deleted: Removed because they are gone (``prune=True``).
        failed: Not taken in, each with its reason.
        nodes: Nodes of all documents taken in or skipped.
        embedded: Nodes that were embedded.
        truncated: Nodes whose embedded text is longer than the model's context, which therefore saw only its
            beginning; 0 when the model does not tell.
        truncated_nodes: Ids of the first of those.
        context_tokens: What the model reads at most; None when it does not tell.
        tokens: Tokens embedded; 0 when the model does not count them.
        seconds: Wall time.
    """

    added: int = 0
    updated: int = 0
    skipped: int = 0
    deleted: int = 0
    failed: tuple[FailedDocument, ...] = ()
    nodes: int = 0
    embedded: int = 0
    truncated: int = 0
    truncated_nodes: tuple[str, ...] = ()
    context_tokens: int | None = None
    tokens: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        """One line for people."""
        parts = [
            f"{count:,} {what}"
            for count, what in (
                (self.added, "added"),
                (self.updated, "updated"),
                (self.skipped, "unchanged"),
                (self.deleted, "deleted"),
                (len(self.failed), "failed"),
            )
            if count or what == "added"
        ]
        embedded = f"{self.embedded:,} of {self.nodes:,} nodes embedded"
        truncated = self._told_truncated()
        return f"documents: {', '.join(parts)}; {embedded}{truncated} in {self.seconds:.1f} s"

    def _told_truncated(self) -> str:
        if not self.truncated:
            return ""
        return (
            f" ({self.truncated:,} longer than the model's context of {self.context_tokens} tokens, the first "
            f"{self.truncated_nodes[0]}: cut with RecursiveChunker.for_model(embed_model))"
        )
