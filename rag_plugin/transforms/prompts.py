"""The default prompts. Each takes `query_str`; those for lists also `num_queries`."""

from __future__ import annotations

from llama_index.core.prompts import PromptTemplate

# Two things every prompt asks for: the language of the query, and its names and numbers unchanged, because a
# translated or "corrected" name finds other passages.

QUERY_EXPANSION = PromptTemplate(
    "Rewrite the search query below in {num_queries} different ways that look for the same information. "
    "Use synonyms, other phrasings, and the words that a document answering it would use. "
    "Keep the language of the query, and keep its names, numbers and codes as they are. "
    "Give one rewritten query per line, without numbering and without explanations.\n\n"
    "Query: {query_str}\n\n"
    "Rewritten queries:\n"
)

# Source: Gao et al., "Precise Zero-Shot Dense Retrieval without Relevance Labels", ACL 2023 (HyDE), section
# 3.2: a passage that answers the question is embedded in place of the question; wrong facts matter little,
# its words do.
HYDE = PromptTemplate(
    "Write one short paragraph, as it would stand in a reference text, that answers the question below. "
    "Write in the language of the question, with its names, numbers and codes as they are. "
    "Give the paragraph alone.\n\n"
    "Question: {query_str}\n\n"
    "Paragraph:\n"
)

# Source: Zheng et al., "Take a Step Back: Evoking Reasoning via Abstraction in Large Language Models", ICLR
# 2024.
STEP_BACK = PromptTemplate(
    "Take a step back from the question below: write {num_queries} more general question(s) about the "
    "principle, topic or background that it belongs to, whose answer helps to answer it. "
    "Keep the language of the question. "
    "Give one question per line, without numbering and without explanations.\n\n"
    "Question: {query_str}\n\n"
    "More general question(s):\n"
)

# Source: Press et al., "Measuring and Narrowing the Compositionality Gap in Language Models", Findings of
# EMNLP 2023: sub-questions answered one by one; here they are searched for one by one.
DECOMPOSITION = PromptTemplate(
    "If the question below asks about several things, split it into at most {num_queries} simpler questions, "
    "each complete on its own, with names in place of pronouns. If it asks about one thing, repeat it "
    "unchanged. Keep the language of the question. "
    "Give one question per line, without numbering and without explanations.\n\n"
    "Question: {query_str}\n\n"
    "Simpler questions:\n"
)
