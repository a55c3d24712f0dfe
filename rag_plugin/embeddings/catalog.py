"""Embedding models and what is known of them; what nobody states stays unknown (``None``).

Prices are list prices in US dollars of 2026, for orientation: the provider's page decides. What was not read in the
source named beside it is listed in ``unverified``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from rag_plugin.models.facts import ModelFacts, Pooling, family_facts

Modality: TypeAlias = Literal["text", "image", "audio"]

_XLM_R_CODES = (
    "af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he hi hr hu hy id is "
    "it ja jv ka kk km kn ko ku ky la lo lt lv mg mk ml mn mr ms my ne nl no om or pa pl ps pt ro ru sa sd si sk sl "
    "so sq sr su sv sw ta te th tl tr ug uk ur uz vi xh yi zh"
)
XLM_R = frozenset(_XLM_R_CODES.split())
"""Languages XLM-RoBERTa was trained on. Source: Conneau et al. 2020, "Unsupervised Cross-lingual Representation
Learning at Scale", and the list in fairseq's examples/xlmr/README.md (romanised variants left out)."""

ENGLISH = frozenset({"en"})


@dataclass(frozen=True)
class EmbeddingFacts:
    """One model.

    Attributes:
        name: What :func:`rag_plugin.embeddings.providers.load` takes.
        dimensions: Length of a vector, unless another one is asked for.
        other_dimensions: Other lengths that the model can be asked for (Matryoshka); a ``range`` or a few.
        context_tokens: Longest input.
        usd_per_million_tokens: 0 for a model that runs on one's own machine.
        languages: ISO 639-1 codes of those it was trained for.
        modalities: What it embeds into one space.
        licence: Of the weights; None where they aren't given out.
        integration: The class that runs it.
        extra: The extra of this package that brings that class.
        backbone_megaparameters: Parameters in millions without the table of token vectors: what a query costs.
        beir: nDCG@10 over the 15 English retrieval sets of MTEB (version 1), in percent.
        miracl: nDCG@10 over the languages of MIRACL, in percent.
        instruction: Text before a query, where it isn't the one of the model's family.
        sources: Where the facts stand.
        unverified: Fields that were not read there: found at third hand, or remembered.
    """

    name: str
    dimensions: int
    context_tokens: int | None
    usd_per_million_tokens: float | None
    languages: frozenset[str] | None
    licence: str | None
    integration: str | None
    extra: str | None
    sources: tuple[str, ...]
    other_dimensions: range | tuple[int, ...] = ()
    modalities: tuple[Modality, ...] = ("text",)
    backbone_megaparameters: float | None = None
    beir: float | None = None
    miracl: float | None = None
    instruction: str = ""
    unverified: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """Its name without the provider."""
        return self.name.partition("/")[2]

    @property
    def is_local(self) -> bool:
        """Whether it runs on one's own machine."""
        return self.usd_per_million_tokens == 0

    @property
    def query_prefix(self) -> str:
        """Text that has to stand before a query; a remote model puts it there by itself."""
        return self.instruction or self._family.query_prefix

    @property
    def passage_prefix(self) -> str:
        """Text that has to stand before a passage."""
        return self._family.passage_prefix

    @property
    def pooling(self) -> Pooling | None:
        """How token vectors become one; None where the model's files say so, or nobody does."""
        return self._family.pooling

    @property
    def _family(self) -> ModelFacts:
        return family_facts(self.model.rpartition("/")[2]) if self.is_local else ModelFacts()


_OPENAI = (
    "OpenAI, model pages text-embedding-3-small and -large (price)",
    "OpenAI, 'New embedding models and API updates' (2024-01-25): dimensions, MIRACL",
)
_MTEB = "MTEB leaderboard, version 1, retrieval average of 15 sets"
_COHERE = (
    "Cohere, 'Embed models' documentation: dimensions, context, images",
    "cohere.com/pricing, which states no price per token for version 3",
    _MTEB,
)
_VOYAGE = (
    "Anthropic, 'Embeddings' guide, table of Voyage's models: dimensions, context",
    "Vercel AI Gateway, model pages voyage-3.5, voyage-3.5-lite and voyage-3-large: price",
)
_BGE = ("README of FlagOpen/FlagEmbedding: table of MTEB, licence",)
_E5_LICENCES = "github.com/embeddings-benchmark/mteb, mteb/models/e5_models.py: licence"
_E5 = ("README of FlagOpen/FlagEmbedding: table of MTEB", _E5_LICENCES)
_ME5 = ("Wang et al. 2024, 'Multilingual E5 Text Embeddings', arXiv:2402.05672", "model cards", _E5_LICENCES)
_HF = "HuggingFaceEmbedding"
_MATRYOSHKA_VOYAGE = (256, 512, 2048)


def _openai(name: str, dimensions: int, usd: float, beir: float, miracl: float) -> EmbeddingFacts:
    return EmbeddingFacts(
        name=f"openai/{name}",
        dimensions=dimensions,
        other_dimensions=range(1, dimensions),
        context_tokens=8192,
        usd_per_million_tokens=usd,
        languages=None,  # no list is published
        licence=None,
        integration="OpenAIEmbedding",
        extra="openai",
        beir=beir,
        miracl=miracl,
        sources=(*_OPENAI, _MTEB),
        unverified=("beir",),
    )


def _cohere(
    name: str, languages: frozenset[str] | None, beir: float | None, modalities: tuple[Modality, ...]
) -> EmbeddingFacts:
    return EmbeddingFacts(
        name=f"cohere/{name}",
        dimensions=1024,
        context_tokens=512,
        usd_per_million_tokens=None,
        languages=languages,
        licence=None,
        integration="CohereEmbedding",
        extra="cohere",
        modalities=modalities,
        beir=beir,
        sources=_COHERE,
        unverified=("beir",),
    )


def _voyage(name: str, usd: float, *, matryoshka: bool = True, dimensions: int = 1024) -> EmbeddingFacts:
    return EmbeddingFacts(
        name=f"voyage/{name}",
        dimensions=dimensions,
        other_dimensions=_MATRYOSHKA_VOYAGE if matryoshka else (),
        context_tokens=32_000,
        usd_per_million_tokens=usd,
        languages=None,
        licence=None,
        integration="VoyageEmbedding",
        extra="voyage",
        sources=_VOYAGE,
    )


def _local(
    name: str,
    dimensions: int,
    context: int,
    megaparameters: float,
    beir: float | None,
    sources: tuple[str, ...],
    *,
    licence: str = "MIT",
    languages: frozenset[str] | None = ENGLISH,
    miracl: float | None = None,
    unverified: tuple[str, ...] = (),
) -> EmbeddingFacts:
    return EmbeddingFacts(
        name=f"huggingface/{name}",
        dimensions=dimensions,
        context_tokens=context,
        usd_per_million_tokens=0,
        languages=languages,
        licence=licence,
        integration=_HF,
        extra="huggingface",
        backbone_megaparameters=megaparameters,
        beir=beir,
        miracl=miracl,
        sources=sources,
        unverified=unverified,
    )


CATALOG: tuple[EmbeddingFacts, ...] = (
    _openai("text-embedding-3-small", 1536, 0.02, 51.08, 44.0),
    _openai("text-embedding-3-large", 3072, 0.13, 55.44, 54.9),
    _cohere("embed-english-v3.0", ENGLISH, 55.00, ("text", "image")),
    # "100+ languages"; those of XLM-R are the part of that list that is certain.
    _cohere("embed-multilingual-v3.0", XLM_R, 53.84, ("text", "image")),
    _voyage("voyage-3.5", 0.06),
    _voyage("voyage-3.5-lite", 0.02),
    _voyage("voyage-3-large", 0.18),
    EmbeddingFacts(
        name="onnx/bge-small-en-v1.5",
        dimensions=384,
        context_tokens=512,
        usd_per_million_tokens=0,
        languages=ENGLISH,
        licence="MIT",
        integration="OnnxEmbedding",
        extra="models",
        backbone_megaparameters=21.3,
        beir=51.68,
        sources=_BGE,
    ),
    _local("BAAI/bge-small-en-v1.5", 384, 512, 21.3, 51.68, _BGE),
    _local("BAAI/bge-base-en-v1.5", 768, 512, 85.1, 53.25, _BGE),
    _local("BAAI/bge-large-en-v1.5", 1024, 512, 302.3, 54.29, _BGE),
    _local(
        *("BAAI/bge-m3", 1024, 8192, 303.9, None),
        ("Chen et al. 2024, 'M3-Embedding', arXiv:2402.03216v4, table 1, row 'Dense'",),
        languages=XLM_R,
        miracl=69.2,
    ),
    _local(
        *("sentence-transformers/all-MiniLM-L6-v2", 384, 256, 10.6, 41.95),
        (
            "model card sentence-transformers/all-MiniLM-L6-v2: licence",
            "README of FlagOpen/FlagEmbedding: table of MTEB",
        ),
        licence="Apache-2.0",
    ),
    _local("intfloat/e5-small-v2", 384, 512, 21.3, 49.04, _E5),
    _local("intfloat/e5-base-v2", 768, 512, 85.1, 50.29, _E5),
    _local("intfloat/e5-large-v2", 1024, 512, 302.3, 50.56, _E5),
    _local(
        *("intfloat/multilingual-e5-small", 384, 512, 21.3, 46.64, _ME5),
        languages=XLM_R,
        miracl=60.8,
        unverified=("beir", "miracl"),
    ),
    _local(
        *("intfloat/multilingual-e5-base", 768, 512, 85.1, 48.88, _ME5),
        languages=XLM_R,
        miracl=62.3,
        unverified=("beir", "miracl"),
    ),
    _local(
        *("intfloat/multilingual-e5-large", 1024, 512, 302.3, 51.43),
        (*_ME5, "arXiv:2402.03216v4, table 1: MIRACL"),
        languages=XLM_R,
        miracl=66.6,
        unverified=("beir",),
    ),
    EmbeddingFacts(
        name="huggingface/intfloat/e5-mistral-7b-instruct",
        dimensions=4096,
        context_tokens=4096,  # its positions go on to 32,768, its sliding window and its training don't
        usd_per_million_tokens=0,
        languages=ENGLISH,
        licence="MIT",
        integration=_HF,
        extra="huggingface",
        backbone_megaparameters=6_980.0,
        beir=56.9,
        instruction="Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ",
        sources=(
            "Wang et al. 2024, arXiv:2401.00368",
            "model card intfloat/e5-mistral-7b-instruct",
            "github.com/microsoft/unilm, e5/README.md: BEIR",
        ),
    ),
    EmbeddingFacts(
        name="clip/openai/clip-vit-base-patch32",
        dimensions=512,
        context_tokens=77,
        usd_per_million_tokens=0,
        languages=ENGLISH,
        licence="MIT",
        integration="ClipEmbedding",
        extra="huggingface",
        modalities=("text", "image"),
        backbone_megaparameters=37.8,
        sources=(
            "Radford et al. 2021, arXiv:2103.00020",
            "github.com/openai/CLIP, LICENSE: MIT, of the code",
        ),
        unverified=("licence",),  # of the weights nothing is said
    ),
    EmbeddingFacts(
        name="imagebind/imagebind_huge",
        dimensions=1024,
        context_tokens=77,
        usd_per_million_tokens=0,
        languages=ENGLISH,
        licence="CC-BY-NC-SA-4.0",
        integration=None,  # LlamaIndex has no class for it, and no package of it is published
        extra=None,
        modalities=("text", "image", "audio"),
        sources=(
            "Girdhar et al. 2023, arXiv:2305.05665",
            "model card in github.com/facebookresearch/ImageBind",
        ),
    ),
)


def facts_about(name: str) -> EmbeddingFacts | None:
    """What the catalog says of the model that :func:`load` knows as ``name``; None when it isn't listed."""
    return next((facts for facts in CATALOG if facts.name.casefold() == name.casefold()), None)
