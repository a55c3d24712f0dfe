"""Query transforms: a language model, or the corpus itself, finds better words for a query.

    retriever = HybridRetriever(store, query_transform=QueryExpansionTransform(llm))
    engine = TransformQueryEngine(query_engine, HyDETransform(llm))

Each returns an `ExpandedQuery`: a `QueryBundle` that any LlamaIndex retriever takes, whose `query_str` stays
the user's own, and whose `variants` say what else to search for, in which leg, with which weight.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.schema import QueryBundle

from rag_plugin.errors import InvalidInputError
from rag_plugin.transforms.asking import LLMQueryTransform
from rag_plugin.transforms.corpus import (
    CorpusTransform,
    embedded,
    looked,
    remembering,
    store_of,
)
from rag_plugin.transforms.feedback import with_feedback
from rag_plugin.transforms.listing import QueryListTransform
from rag_plugin.transforms.parsing import parse_passage
from rag_plugin.transforms.prompts import DECOMPOSITION, HYDE, QUERY_EXPANSION, STEP_BACK
from rag_plugin.transforms.spelling import Speller, corrected_text
from rag_plugin.transforms.variants import DENSE_LEG, ExpandedQuery, Leg, Variant, VariantKind

if TYPE_CHECKING:
    from llama_index.core.prompts import PromptTemplate
    from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
    from llama_index.core.schema import QueryType

    from rag_plugin.store.hybrid_store import HybridStore
    from rag_plugin.transforms.asking import Question
    from rag_plugin.transforms.calling import Deadline
    from rag_plugin.transforms.searching import Search

__all__ = [
    "DecompositionTransform",
    "ExpandedQuery",
    "FeedbackTransform",
    "HyDETransform",
    "LLMQueryTransform",
    "Leg",
    "QueryExpansionTransform",
    "SpellingTransform",
    "StepBackTransform",
    "TransformChain",
    "Variant",
    "VariantKind",
]


class QueryExpansionTransform(QueryListTransform):
    """Asks an LLM for synonyms and rephrasings, and searches for them beside the query, in both legs.

    Takes the arguments of `QueryListTransform` and `LLMQueryTransform`.

    Example:
        >>> from llama_index.core.llms import CustomLLM, CompletionResponse, LLMMetadata
        >>> class Thesaurus(CustomLLM):
        ...     metadata = property(lambda self: LLMMetadata(model_name="thesaurus"))
        ...     def complete(self, prompt, formatted=False, **kwargs):
        ...         return CompletionResponse(text="Sure:\\n1. automobile insurance\\n2. vehicle cover")
        ...     def stream_complete(self, prompt, formatted=False, **kwargs):
        ...         yield self.complete(prompt)
        >>> query = QueryExpansionTransform(Thesaurus()).run("car insurance")
        >>> query.query_str, [(variant.text, variant.weight) for variant in query.variants[1:]]
        ('car insurance', [('automobile insurance', 0.25), ('vehicle cover', 0.25)])
    """

    kind: ClassVar[VariantKind] = "expansion"
    prompt_name: ClassVar[str] = "query_expansion"
    default_prompt: ClassVar[PromptTemplate] = QUERY_EXPANSION


class StepBackTransform(QueryListTransform):
    """Asks an LLM for the more general question behind the query, for passages that give the background.

    Takes the arguments of `QueryListTransform`, with `num_queries=1`.

    Source: Zheng et al., "Take a Step Back: Evoking Reasoning via Abstraction in Large Language Models", ICLR
    2024.
    """

    kind: ClassVar[VariantKind] = "step_back"
    prompt_name: ClassVar[str] = "step_back"
    default_prompt: ClassVar[PromptTemplate] = STEP_BACK

    def __init__(self, llm: Any = None, *, num_queries: int = 1, **options: Any) -> None:
        super().__init__(llm, num_queries=num_queries, **options)


class DecompositionTransform(QueryListTransform):
    """Asks an LLM to split a compound question, so that each part finds its own passages.

    A question about one thing comes back unchanged; that is an answer, not a failure. Takes the arguments of
    `QueryListTransform`.

    Source: Press et al., "Measuring and Narrowing the Compositionality Gap in Language Models", EMNLP 2023.
    """

    kind: ClassVar[VariantKind] = "sub_question"
    prompt_name: ClassVar[str] = "decomposition"
    default_prompt: ClassVar[PromptTemplate] = DECOMPOSITION
    repeat_is_an_answer: ClassVar[bool] = True


class HyDETransform(LLMQueryTransform):
    """Asks an LLM for a passage that could answer the query; the dense leg searches for passages like it.

    The sparse leg does not see the passage: its invented words would count as much as the user's. Takes the
    arguments of `LLMQueryTransform`.

    Source: Gao et al., "Precise Zero-Shot Dense Retrieval without Relevance Labels", ACL 2023.
    """

    kind: ClassVar[VariantKind] = "hypothetical"
    legs: ClassVar[frozenset[Leg]] = DENSE_LEG
    prompt_name: ClassVar[str] = "hyde"
    default_prompt: ClassVar[PromptTemplate] = HYDE
    max_chars: ClassVar[int] = 2_000

    def _ask(self, question: Question, deadline: Deadline) -> tuple[str, ...] | None:
        passage = parse_passage(
            self._predicted(question, deadline),
            query=question.query,
            prompt=question.text,
            max_chars=self._limits.max_chars,
        )
        return None if passage is None else (passage,)


class FeedbackTransform(CorpusTransform):
    """Searches for what the query finds first: pseudo-relevance feedback, without any language model.

    A first look at the corpus gives the sparse leg the terms of the best passages (RM3) and moves the dense
    leg's vector towards them (Rocchio), for a second search over the whole corpus. ``gate="auto"`` leaves alone
    a query whose best find stands out from the rest, because it names a passage and what lies around it is not
    wanted, and one whose best finds are all alike, because feedback would drift with them. Takes the arguments
    of `CorpusTransform`.

    Source: Abdul-Jaleel et al., "UMass at TREC 2004: Novelty and HARD" (RM3); Rocchio, "Relevance Feedback in
    Information Retrieval", 1971. Constants are those of the default fusion, `rag_plugin.fusion.auto`.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from rag_plugin import HybridStore
        >>> store = HybridStore()
        >>> ids = store.add([TextNode(id_="a", text="the heart pumps blood"), TextNode(text="sewage")])
        >>> FeedbackTransform(store, mode="sparse", gate="always").run("heart").variants[1].kind
        'feedback'
    """

    def _expanded(self, query: ExpandedQuery, search: Search) -> ExpandedQuery:
        store = store_of(search, type(self).__name__)
        vectors = embedded(query, search, store)
        with store.view() as view:
            look = looked(view, query, vectors, search)
            query = remembering(query, vectors)
            if self._gate == "auto" and not (look.is_weak and look.is_steady):
                return query
            return with_feedback(query, view, look)


class SpellingTransform(CorpusTransform):
    """Adds the query as the corpus would spell it: "retreival" also searches for "retrieval".

    Only words that no passage holds are looked at, and only words that a passage holds are put in their place;
    numbers, codes, addresses, abbreviations and names with capitals inside are left alone, and the user's own
    words are searched for in any case. There is no dictionary to build or keep: see
    `rag_plugin.transforms.spelling`. ``gate="always"`` allows a second wrong letter in shorter words, too.
    Takes the arguments of `CorpusTransform`.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from rag_plugin import HybridStore
        >>> store = HybridStore()
        >>> ids = store.add([TextNode(text="dense retrieval"), TextNode(text="order 66-A7")])
        >>> SpellingTransform(store).run("teh best retreival of 66-A8").variants[1].text
        'the best retrieval of 66-A8'
    """

    def __init__(self, store: HybridStore | None = None, **options: Any) -> None:
        super().__init__(store, **options)
        self._speller = Speller()

    def _expanded(self, query: ExpandedQuery, search: Search) -> ExpandedQuery:
        with store_of(search, type(self).__name__).view() as view:
            mask = view.select(search.filters).mask
            found = self._speller.corrections(view, query.query_str, mask, bold=self._gate == "always")
            if not found:
                return query
            analyzer = view.legs.sparse.analyzer
            terms = Counter(term for correction in found for term in analyzer.terms(correction.corrected))
        corrected = corrected_text(query.query_str, found)
        # A misspelt word finds nothing by itself, so its correction counts as any other word of the query does.
        counts = tuple((term, float(count)) for term, count in terms.items())
        return query.with_more([Variant(corrected, "spelling", 0.0, terms=counts)])


class TransformChain(BaseQueryTransform):
    """Runs query transforms one after the other, ours and LlamaIndex's own.

    Args:
        transforms: At least one; each gets what the one before it made.

    Raises:
        InvalidInputError: There is none, or one is no query transform.
    """

    def __init__(self, transforms: Sequence[BaseQueryTransform]) -> None:
        super().__init__()
        if not isinstance(transforms, Sequence):
            raise InvalidInputError(
                f"transforms must be a list of query transforms; found a {type(transforms).__name__}. "
                "Put it in brackets."
            )
        self._transforms = tuple(transforms)
        strangers = [type(t).__name__ for t in self._transforms if not isinstance(t, BaseQueryTransform)]
        if strangers or not self._transforms:
            raise InvalidInputError(
                "transforms must hold at least one BaseQueryTransform and nothing else; "
                f"found {strangers or 'none'}."
            )

    async def arun(
        self, query_bundle_or_str: QueryType, metadata: dict[str, Any] | None = None
    ) -> QueryBundle:
        """Return what `run` returns; a transform that has no `arun` runs in a thread."""
        query = (
            QueryBundle(query_bundle_or_str) if isinstance(query_bundle_or_str, str) else query_bundle_or_str
        )
        for transform in self._transforms:
            if hasattr(transform, "arun"):
                query = await transform.arun(query, metadata)
            else:
                query = await asyncio.to_thread(transform.run, query, metadata)
        return query

    def _run(self, query_bundle: QueryBundle, metadata: dict[str, Any]) -> QueryBundle:
        for transform in self._transforms:
            query_bundle = transform.run(query_bundle, metadata)
        return query_bundle

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _get_prompt_modules(self) -> PromptMixinType:
        return {str(position): transform for position, transform in enumerate(self._transforms)}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Nothing of its own; `update_prompts` hands each transform its prompts as `0:query_expansion`."""
