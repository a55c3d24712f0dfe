"""How hard a dense search tries: the one trade of time for recall that is a caller's to make."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from rag_plugin.errors import InvalidInputError


@dataclass(frozen=True)
class SearchEffort:
    """What one query may spend on the dense leg; None leaves it to the index.

    Attributes:
        nprobe: Inverted lists that are read (``ivf``, ``ivfpq``; the others have one).
        ef_search: Nodes that are kept in view while a graph is walked (``hnsw``).
        rescore: Candidates that are scored exactly from the stored vectors.
        exact: Compare with every vector, whatever the index is.

    Raises:
        InvalidInputError: A number below 1.
    """

    nprobe: int | None = None
    ef_search: int | None = None
    rescore: int | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        for name in ("nprobe", "ef_search", "rescore"):
            number = getattr(self, name)
            if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
                raise InvalidInputError(f"{name}={number!r}; expected a whole number, 1 or more, or None.")
        if not isinstance(self.exact, bool):
            raise InvalidInputError(f"exact={self.exact!r}; expected True or False.")

    @classmethod
    def among(cls, arguments: dict[str, Any]) -> SearchEffort:
        """The effort that a query's keyword arguments name; other arguments are left alone.

        Raises:
            InvalidInputError: A number below 1.
        """
        return cls(**{field.name: arguments[field.name] for field in fields(cls) if field.name in arguments})


USUAL_EFFORT = SearchEffort()
