"""Every error this package raises on purpose.

Each says what was wrong, where, what was expected and found, and what to do next.
"""

# RagPluginError
# ├── InvalidInputError (ValueError)              a value handed to a public door is wrong
# │   ├── FilterError                             a metadata filter that cannot be compiled
# │   ├── UnsupportedQueryError                   a query mode the store does not serve
# │   └── EmbeddingMismatchError                  another model, dimension or metric than the store holds
# ├── StoreError
# │   ├── StorePathError (OSError)                the path cannot hold a store
# │   ├── StoreLockedError (TimeoutError)         another writer holds the store
# │   ├── StoreReadOnlyError (PermissionError)    a write to a store opened read-only
# │   ├── StoreClosedError (RuntimeError)         used after close(), or inherited through a fork
# │   ├── StoreFormatError                        written by a version we cannot read
# │   ├── StoreWriteError (OSError)               the disk refused a write; nothing was changed
# │   ├── StoreUnreachableError (ConnectionError) a store on another machine does not answer
# │   └── StoreCorruptedError                     the truth itself is damaged
# ├── MissingExtraError (ImportError)             an optional dependency is not installed
# ├── ModelError (RuntimeError)                   a model failed to load or to run
# │   └── ModelNotFoundError (FileNotFoundError)  no such model file
# ├── DeadlineExceededError (TimeoutError)        an answer did not come in time
# └── IngestionError (RuntimeError)               documents could not be read, embedded or stored

from __future__ import annotations


class RagPluginError(Exception):
    """Base of every error raised on purpose by this package."""


class InvalidInputError(RagPluginError, ValueError):
    """A value handed to a public door is wrong."""


class FilterError(InvalidInputError):
    """A metadata filter cannot be compiled."""


class UnsupportedQueryError(InvalidInputError):
    """The store does not serve this query mode."""


class EmbeddingMismatchError(InvalidInputError):
    """Vectors come from another model, or have another dimension or metric, than the store's."""


class StoreError(RagPluginError):
    """Base of what can go wrong with a store."""


class StorePathError(StoreError, OSError):
    """The path cannot hold a store."""


class StoreLockedError(StoreError, TimeoutError):
    """Another writer holds the store."""


class StoreReadOnlyError(StoreError, PermissionError):
    """A write to a store that was opened read-only."""


class StoreClosedError(StoreError, RuntimeError):
    """The store was closed, or was inherited through a fork."""


class StoreFormatError(StoreError):
    """The store was written by a version this one cannot read."""


class StoreWriteError(StoreError, OSError):
    """The disk refused a write; the store is as it was before."""


class StoreUnreachableError(StoreError, ConnectionError):
    """A store on another machine does not answer; what was sent may or may not have arrived."""


class StoreCorruptedError(StoreError):
    """The truth itself is damaged: a row or a page does not match its digest."""


class MissingExtraError(RagPluginError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, *, extra: str, package: str) -> None:
        super().__init__(
            f"{feature} needs the package {package!r}, which is not installed. "
            f'Install it with: pip install "rag-plugin[{extra}]"'
        )


class ModelError(RagPluginError, RuntimeError):
    """A model failed to load or to run."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """No model files were found under the name or path given."""


class DeadlineExceededError(RagPluginError, TimeoutError):
    """An answer did not come in time."""


class IngestionError(RagPluginError, RuntimeError):
    """Documents could not be read, embedded or stored."""
