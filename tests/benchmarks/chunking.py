"""How fast documents become chunks: by position alone, as nodes, and by LlamaIndex's SentenceSplitter.

    python -m tests.benchmarks.chunking [--megabytes 20] [--sizes 512,1000] [--floor 20]

The text is Python's own reference (``pydoc_data.topics``: prose, tables and code), each topic a document with a
title and a file name, as often as the size asks for. All sides cut in characters with a tenth of overlap, on the
same documents in one process, garbage collection as it comes. Of each the quickest of three rounds counts,
in seconds of the processor, which a busy machine does not stretch. Megabytes are millions of characters. With
``--floor`` the exit status says whether nodes were made that fast.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pydoc_data.topics import topics
from typing import TYPE_CHECKING

from llama_index.core import Document
from llama_index.core.node_parser import SentenceSplitter

from rag_plugin.ingestion.chunker import RecursiveChunker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUNDS = 3
STOCK_MEGABYTES = 3.0
"""As much as the stock splitter is given: it takes its time, and its speed does not depend on how much there is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print a line for each size of chunk."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.chunking", description=__doc__)
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--sizes", default="512,1000", help="characters per chunk at most, by commas")
    parser.add_argument("--floor", type=float, help="megabytes a second that nodes must reach")
    given = parser.parse_args(arguments)
    documents, few = made_documents(given.megabytes), made_documents(min(given.megabytes, STOCK_MEGABYTES))
    slowest = float("inf")
    for size in map(int, given.sizes.split(",")):
        chunker = RecursiveChunker(size, size // 10)
        stock = SentenceSplitter(chunk_size=size, chunk_overlap=size // 10, tokenizer=list)
        cut = speed(lambda chunker=chunker: [chunker.split_text(one.text) for one in documents], documents)
        nodes = speed(lambda chunker=chunker: chunker(documents), documents)
        beside = speed(lambda stock=stock: stock(few), few)
        print(
            f"chunks of {size} characters: cut at {cut:.1f} MB/s, nodes at {nodes:.1f} MB/s; "
            f"SentenceSplitter at {beside:.2f} MB/s, {nodes / beside:.0f} times slower"
        )
        slowest = min(slowest, nodes)
    return int(given.floor is not None and slowest < given.floor)


def made_documents(megabytes: float) -> list[Document]:
    """Topics as documents, of that size in all or a little more."""
    documents: list[Document] = []
    missing = megabytes * 1e6
    for number, (title, text) in enumerate(itertools.cycle(topics.items())):
        if missing <= 0:
            break
        documents.append(
            Document(
                id_=f"topics/{number}",
                text=text,
                metadata={"title": title, "file_path": f"{title}.txt"},
                excluded_embed_metadata_keys=["file_path"],
            )
        )
        missing -= len(text)
    return documents


def speed(work: Callable[[], object], documents: Sequence[Document]) -> float:
    """Megabytes a second of the processor."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        made = work()
        seconds.append(time.process_time() - started)
        del made  # what becomes of the chunks, and when they go, is their owner's business
    return sum(len(document.text) for document in documents) / 1e6 / min(seconds)


if __name__ == "__main__":
    sys.exit(main())
