"""Documents to nodes: :class:`RecursiveChunker`, a LlamaIndex node parser.

A chunk ends at the strongest separator that leaves it reasonably full, never inside a grapheme. Everything is
done by position in the original text, in one pass, so offsets are exact and nothing is lost between chunks.
"""

from __future__ import annotations

import pickle
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.bridge.pydantic import Field, PrivateAttr, field_serializer
from llama_index.core.node_parser import NodeParser
from llama_index.core.node_parser.node_utils import default_id_func
from llama_index.core.schema import (
    BaseNode,
    Document,
    MetadataMode,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.utils import get_tqdm_iterable

from rag_plugin.errors import InvalidInputError
from rag_plugin.garbage import garbage_left
from rag_plugin.ingestion.chunk_nodes import HEADING_KEY, ChunkMold, stable_node_id
from rag_plugin.ingestion.cuts import spans
from rag_plugin.ingestion.fitting import fitting
from rag_plugin.ingestion.languages import (
    SEPARATORS,
    CutBetween,
    HeadingPaths,
    Language,
    Separator,
    Separators,
    checked_language,
    language_of,
    without_lookalikes,
)
from rag_plugin.ingestion.rulers import CharacterRuler, Ruler, Tokenizer, TokenRuler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding


class RecursiveChunker(NodeParser):
    r"""Cut documents at paragraphs, else lines, else sentences, else words, else graphemes.

    Sizes are in characters unless a tokenizer is given. The default of 512 characters is some 110 to 130
    tokens of English: a paragraph, well inside every embedding model's context, cheap to rerank, and the same
    on every machine because no model takes part. Give ``tokenizer`` (or ``unit="tokens"``) to fill a model's
    context.

    Node ids are UUIDs derived from the document's id, the chunk's text and its occurrence among equal chunks
    of that document. They do not depend on the chunk's position or on the settings: a chunk that an edit
    leaves alone keeps its id and need not be embedded again, and equal texts in two documents stay two nodes.

    Each node carries ``start_char_idx``/``end_char_idx`` into the document's text, the metadata
    ``chunk_index``, ``chunk_count``, ``chunk_size`` (in units) and, in Markdown and HTML, ``heading_path``, and
    its source, previous and next node. Chunks of nothing but white space make no node.

    Example:
        >>> from llama_index.core import Document
        >>> chunker = RecursiveChunker(chunk_size=20, chunk_overlap=0)
        >>> [node.text for node in chunker([Document(text="One sentence. Another sentence.")])]
        ['One sentence. ', 'Another sentence.']
    """

    chunk_size: int = Field(description="The largest chunk, in units.")
    chunk_overlap: int = Field(
        description="How much of a chunk's end the next one repeats at most, in units."
    )
    unit: Literal["characters", "tokens"] = Field(description="What sizes are counted in.")
    tokenizer: Any = Field(
        default=None, description="Counts tokens: a callable, or the name of a packaged model."
    )
    language: str = Field(default="auto", description="What kind of text it is, which says where to cut.")
    separators: Separators | None = Field(
        default=None, description="Where to cut instead: levels of equal separators, strongest first."
    )
    embed_headings: bool = Field(
        default=False, description="Whether the heading path is embedded with the text."
    )
    _ruler: Ruler | None = PrivateAttr(default=None)

    def __init__(
        self,
        chunk_size: int = 512,
        chunk_overlap: int = 50,
        *,
        unit: Literal["characters", "tokens"] | None = None,
        tokenizer: Tokenizer | str | None = None,
        language: Language | Literal["auto"] = "auto",
        separators: Sequence[Separator | Sequence[Separator]] | None = None,
        embed_headings: bool = False,
        **node_parser_fields: Any,
    ) -> None:
        """Check the settings; no model is loaded before the first text comes.

        Args:
            chunk_size: The largest chunk, in units. With tokens, the metadata that is embedded in front of
                the text counts too, so that the embedded text fits (it may take up to half of the size).
            chunk_overlap: The most a chunk repeats of the one before, in units; 0 for none.
            unit: ``"characters"`` or ``"tokens"``; None means tokens when a tokenizer is given.
            tokenizer: ``str -> tokens`` or ``str -> number of tokens``, for example
                ``OnnxEmbedding().count_tokens``; or the name of a model for ``OnnxEmbedding``. With
                ``unit="tokens"`` and None, the default ``OnnxEmbedding`` counts.
            language: ``text``, ``markdown``, ``python`` or ``html`` (markup, not a page's text); ``auto``
                goes by the suffix of the document's ``file_path`` or ``file_name`` and else takes ``text``,
                which also knows the punctuation of Chinese and Japanese.
            separators: In place of the language's: strongest first; an inner sequence holds separators of
                equal strength. A chunk keeps the separator it ends with; a :class:`CutBetween` is cut in its
                middle.
            embed_headings: Put the heading path in front of the text when it is embedded, so that a chunk
                deep in a section is found by the section's name. A renamed heading then embeds its whole
                section anew.
            **node_parser_fields: ``include_metadata``, ``include_prev_next_rel``, ``id_func``,
                ``callback_manager`` of LlamaIndex's ``NodeParser``.

        Raises:
            InvalidInputError: A size, overlap, unit, tokenizer, language or separator that makes no sense.
        """
        if chunk_size < 1 or not 0 <= chunk_overlap < chunk_size:
            raise InvalidInputError(
                f"chunk_size={chunk_size}, chunk_overlap={chunk_overlap}: expected chunk_size >= 1 and "
                "0 <= chunk_overlap < chunk_size. Try RecursiveChunker(512, 50)."
            )
        if unit is None:
            unit = "characters" if tokenizer is None else "tokens"
        if unit not in ("characters", "tokens"):
            raise InvalidInputError(f"unit={unit!r}: expected 'characters' or 'tokens'.")
        if unit == "characters" and tokenizer is not None:
            raise InvalidInputError("A tokenizer was given with unit='characters'. Leave one of them out.")
        if not (tokenizer is None or callable(tokenizer) or isinstance(tokenizer, str)):
            raise InvalidInputError(
                f"tokenizer is a {type(tokenizer).__name__}; expected a callable (text to tokens or to their "
                "number) or a model's name."
            )
        fields: dict[str, Any] = {
            "chunk_size": chunk_size,
            "chunk_overlap": chunk_overlap,
            "unit": unit,
            "tokenizer": tokenizer,
            "language": checked_language(language),
            "separators": None if separators is None else _levels(separators),
            "embed_headings": embed_headings,
        }
        super().__init__(**fields, **node_parser_fields)

    @classmethod
    def for_model(
        cls, embed_model: BaseEmbedding | None = None, *, chunk_size: int | None = None, **options: Any
    ) -> RecursiveChunker:
        """A chunker of chunks that the model reads whole: as long as its context (or ``chunk_size`` of its tokens), a
        tenth of it repeated unless ``chunk_overlap`` says otherwise.

        Raises:
            InvalidInputError: The model doesn't tell what it reads, or ``chunk_size`` is more than that.
        """
        return cls(**{**fitting(embed_model, chunk_size), **options})

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex serialises and caches under."""
        return "RecursiveChunker"

    def __getstate__(self) -> dict[str, Any]:
        """The state to pickle.

        Raises:
            InvalidInputError: The tokenizer cannot be pickled. LlamaIndex would drop it without a word, and
                the copy in the worker process would cut elsewhere.
        """
        try:
            pickle.dumps(self.tokenizer)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InvalidInputError(
                f"This chunker's tokenizer cannot be sent to another process ({error}). "
                "Give a function defined at the top of a module, or a model's name."
            ) from error
        self._ruler = None  # loaded again, lazily, on the other side
        return super().__getstate__()

    @field_serializer("tokenizer")
    def _tokenizer_by_name(self, tokenizer: Any) -> str | None:
        # Part of LlamaIndex's cache key, so it must say which tokenizer and not where in memory it lies.
        if tokenizer is None or isinstance(tokenizer, str):
            return tokenizer
        kind = getattr(tokenizer, "__qualname__", type(tokenizer).__qualname__)
        owner = getattr(tokenizer, "__self__", None)
        model = getattr(owner, "model_name", "")
        return f"{getattr(tokenizer, '__module__', '')}.{kind}({model})"

    # --- text to chunks -------------------------------------------------------------------------------------

    def split_text(self, text: str) -> list[str]:
        """The chunks of ``text``; without overlap they concatenate to it."""
        return [text[start:end] for start, end in self.spans(text)]

    def spans(
        self, text: str, *, reserved: int = 0, language: Language | None = None
    ) -> Iterator[tuple[int, int]]:
        """The chunks of ``text`` as ``(start, end)``, in order, covering all of it.

        Args:
            text: Any string.
            reserved: Units to leave free in every chunk.
            language: What to take for ``auto``; None means plain text.
        """
        size = self.chunk_size - reserved
        language = self._language(language or "text")
        return spans(
            text,
            self._measure(),
            size,
            min(self.chunk_overlap, size - 1),
            self.separators or SEPARATORS[language],
            None if self.separators else without_lookalikes(text, language),
        )

    def _language(self, automatic: Language) -> Language:
        return automatic if self.language == "auto" else self.language  # type: ignore[return-value]  # checked

    def _measure(self) -> Ruler:
        ruler = self._ruler
        if ruler is None:
            if self.unit == "characters":
                ruler = CharacterRuler()
            elif callable(self.tokenizer):
                ruler = TokenRuler(self.tokenizer)
            else:
                from rag_plugin.embeddings.onnx import OnnxEmbedding  # loads onnxruntime: only when asked for

                model = OnnxEmbedding(self.tokenizer) if self.tokenizer else OnnxEmbedding()
                ruler = TokenRuler(model.count_tokens)
            self._ruler = ruler
        return ruler

    # --- documents to nodes ---------------------------------------------------------------------------------

    def _parse_nodes(
        self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        chunks: list[BaseNode] = []
        occurrences: dict[str, Counter[str]] = {}
        with garbage_left(sum(len(getattr(node, "text", "")) for node in nodes) // self.chunk_size):
            for node in get_tqdm_iterable(nodes, show_progress, "Chunking"):
                if not isinstance(node, BaseNode):
                    raise InvalidInputError(
                        f"Expected LlamaIndex documents or nodes, found {type(node).__name__}."
                    )
                source = node.source_node
                if source is None:
                    seen: Counter[str] = Counter()
                else:  # pieces of one document share their count, or equal ones would share an id
                    seen = occurrences.setdefault(source.node_id, Counter())
                chunks.extend(self._chunks_of(node, source, seen))
        return chunks

    def _postprocess_parsed_nodes(
        self, nodes: list[BaseNode], parent_doc_map: dict[str, Document]
    ) -> list[BaseNode]:
        # LlamaIndex searches each chunk's text in the document to find its offsets and copies all metadata
        # into every relationship; ours are exact and lean from the start.
        return nodes

    def _chunks_of(
        self, node: BaseNode, source: RelatedNodeInfo | None, seen: Counter[str]
    ) -> list[TextNode]:
        text = node.get_content(metadata_mode=MetadataMode.NONE)
        language = self._language(language_of(node.metadata))
        headings = HeadingPaths(text, language)
        reserved = self._reserved(node, headings)
        pieces = [
            (start, end, piece)
            for start, end in self.spans(text, reserved=reserved, language=language)
            if not (piece := text[start:end]).isspace()
        ]
        ref_doc_id = node.node_id if source is None else source.node_id
        offset = (getattr(node, "start_char_idx", None) or 0) if source is not None else 0
        mold = ChunkMold(node, ref_doc_id, embed_headings=self.embed_headings)
        inherited = node.metadata if self.include_metadata else {}
        length, count, made = self._measure().count, len(pieces), mold.node
        id_func = None if self.id_func is default_id_func else self.id_func
        chunks: list[TextNode] = []
        for index, (start, end, piece) in enumerate(pieces):
            metadata = {**inherited}
            if headings and (path := headings.at(start)):
                metadata[HEADING_KEY] = path
            metadata["chunk_index"] = index
            metadata["chunk_count"] = count
            metadata["chunk_size"] = length(piece)
            if id_func is None:
                occurrence = seen.get(piece, 0)
                seen[piece] = occurrence + 1
                node_id = stable_node_id(ref_doc_id, piece, occurrence)
            else:
                node_id = str(id_func(index, node))
            chunks.append(made(node_id, piece, offset + start, offset + end, metadata))
        if self.include_prev_next_rel:
            mold.chain(chunks)
        return chunks

    def _reserved(self, node: BaseNode, headings: HeadingPaths) -> int:
        """Tokens that the metadata in front of the embedded text takes, up to half of a chunk."""
        ruler = self._measure()
        if not isinstance(ruler, TokenRuler):
            return 0
        metadata = node.metadata if self.include_metadata else {}
        if self.embed_headings and headings.longest:
            metadata = {**metadata, HEADING_KEY: headings.longest}
        header = node.model_copy(update={"metadata": metadata}).get_metadata_str(mode=MetadataMode.EMBED)
        return min(ruler.count(header), self.chunk_size // 2) if header else 0


def _levels(separators: Sequence[Separator | Sequence[Separator]]) -> Separators:
    levels = tuple((level,) if isinstance(level, str | CutBetween) else tuple(level) for level in separators)
    for separator in (one for level in levels for one in level):
        if not isinstance(separator, str | CutBetween) or not separator or separator == CutBetween("", ""):
            raise InvalidInputError(
                f"separators holds {separator!r}; expected non-empty strings, strongest first. "
                "Cutting between any two graphemes is always the last resort and needs no entry."
            )
    return levels
