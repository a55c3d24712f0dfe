"""Reading the table of nodes, against the nodes that were added."""

import numpy as np
import pytest
from llama_index.core.schema import TextNode

from rag_plugin import HybridStore
from rag_plugin.errors import StoreCorruptedError
from rag_plugin.store.truth.node_table import read_payloads, read_records
from rag_plugin.store.truth.records import node_from_payload


def test_any_number_of_rows_is_read_each_once():
    nodes = [
        TextNode(id_=f"n{number}", text=f"text {number}", metadata={"n": number}) for number in range(700)
    ]
    store = HybridStore()
    store.add(nodes)
    with store.view() as view:
        rows = view.legs.rows.items
        for count in (0, 1, 2, 8, 9, 33, 129, 512, 513, 700):
            chosen = np.random.default_rng(count).permutation(700)[:count]
            wanted = rows[chosen].tolist()
            records = read_records(view.connection, wanted)
            assert len(records) == count
            assert read_payloads(view.connection, wanted * 2) == {one.row: one.payload for one in records}
            found = {record.row: node_from_payload(record.payload, row=record.row) for record in records}
            assert [found[row] for row in wanted] == [nodes[number] for number in chosen]


@pytest.mark.parametrize("read", [read_records, read_payloads])
def test_a_row_that_is_not_there_is_damage(read):
    store = HybridStore()
    store.add([TextNode(id_="n", text="text")])
    with store.view() as view:
        row = int(view.legs.rows.items[0])
        with pytest.raises(StoreCorruptedError, match=f"Row {row + 7} is missing"):
            read(view.connection, [row, row + 7])


@pytest.mark.parametrize(
    "payload",
    [
        b'["TextNode",{"text":"a"}] ',
        b' ["TextNode",{}]',
        b'["TextNode",{"text":1}]',
        b'{"text":"a"',
        b"{}{}",
        b'{"relationships":3}',
    ],
)
def test_a_payload_nobody_wrote_is_refused(payload):
    with pytest.raises(StoreCorruptedError, match="Row 7"):
        node_from_payload(payload, row=7)
