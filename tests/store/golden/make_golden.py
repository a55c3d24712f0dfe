"""Makes the golden store of the present format. Run once per format, before the format is released:

    python -m tests.store.golden.make_golden

It writes ``format-N.zip``, a backup of a small store, beside this file. A golden store is never made again: the
tests open what older versions really wrote.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from llama_index.core.schema import IndexNode, NodeRelationship, RelatedNodeInfo, TextNode

from rag_plugin import HybridStore
from rag_plugin.store.truth.migrations import FORMAT_VERSION
from tests.words import WORDS

HERE = Path(__file__).parent


def golden_nodes() -> list[TextNode]:
    """What every golden store holds."""
    rng = np.random.default_rng(2024)
    nodes = []
    for number in range(60):
        node = TextNode(
            id_=f"node-{number}",
            text=" ".join(rng.choice(WORDS, 8)),
            metadata={"page": number, "tags": ["a", "b"][: number % 3], "title": f"Säule {number % 7}"},
            excluded_embed_metadata_keys=["page", "tags"],
            embedding=rng.standard_normal(16).astype(np.float32).tolist(),
        )
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"document-{number // 10}")
        nodes.append(node)
    nodes.append(IndexNode(id_="index", text="points elsewhere", index_id="there", embedding=[0.5] * 16))
    return nodes


def make(target: Path) -> None:
    """Write a backup of the golden store, after some history, to ``target``."""
    with TemporaryDirectory() as folder, HybridStore(Path(folder) / "store", bm25="okapi") as store:
        nodes = golden_nodes()
        store.add([*nodes, TextNode(id_="gone", text="deleted again", embedding=[1.0] * 16)])
        store.delete_nodes(["gone"])
        store.bind_embedding("golden model")
        backup = store.backup(Path(folder) / "golden.db")
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(backup, "store.db")


if __name__ == "__main__":
    make(HERE / f"format-{FORMAT_VERSION}.zip")
