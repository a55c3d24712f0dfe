"""Arrays that grow in place while older views of them stay valid."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


class GrowingArray(Generic[Scalar]):
    """An immutable view of the first ``size`` entries of a buffer that only ever grows behind it.

    ``appended`` writes past ``size`` and returns a longer view of the same buffer, so a reader holding the
    older view sees nothing of it. Only the newest view may be appended to, by one writer at a time; an
    append whose result is thrown away is overwritten by the next one.
    """

    __slots__ = ("_buffer", "size")

    def __init__(self, buffer: NDArray[Scalar], size: int | None = None) -> None:
        self._buffer = buffer
        self.size = len(buffer) if size is None else size

    def __len__(self) -> int:
        return self.size

    @property
    def items(self) -> NDArray[Scalar]:
        """The entries, ``(size, …)``, not to be written to."""
        view = self._buffer[: self.size]
        view.flags.writeable = False
        return view

    def appended(self, values: NDArray[Any]) -> GrowingArray[Scalar]:
        """A view with ``values`` behind the entries of this one."""
        size = self.size + len(values)
        buffer = self._buffer
        if size > len(buffer) or not buffer.flags.writeable:
            # Half as much again: appends stay linear in all, at most a third of the buffer is unused.
            buffer = np.empty((max(size, len(buffer) * 3 // 2, 64), *buffer.shape[1:]), buffer.dtype)
            buffer[: self.size] = self._buffer[: self.size]
        buffer[self.size : size] = values
        return GrowingArray(buffer, size)
