"""`import rag_plugin` costs next to nothing, and no door pulls in a framework before it is used."""

import json
import subprocess
import sys

import pytest

# Each costs between a tenth of a second and several seconds, or is an extra that need not be installed.
HEAVY = [
    "torch",
    "transformers",
    "sentence_transformers",
    "openvino",
    "faiss",
    "onnxruntime",
    "scipy",
    "pandas",
    "matplotlib",
    "openai",
    "llama_index",
]
FRAMEWORKS = [
    "torch",
    "transformers",
    "sentence_transformers",
    "openvino",
    "ray",
    "qdrant_client",
    "redis",
    "mcp",
]


def modules_after(statement: str) -> tuple[set[str], float]:
    """The modules a fresh interpreter holds after a statement, and the seconds that took."""
    program = (
        "import json, sys, time\n"
        "start = time.perf_counter()\n"
        f"{statement}\n"
        "print(json.dumps([sorted(sys.modules), time.perf_counter() - start]))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules, seconds = json.loads(answer.stdout)
    return set(modules), seconds


def test_importing_the_package_imports_nothing_heavy(record_property) -> None:
    modules, seconds = modules_after("import rag_plugin, rag_plugin.embeddings")
    record_property("import_seconds", seconds)
    print(f"import rag_plugin and its embeddings: {seconds:.3f} s")
    assert sorted(modules & set(HEAVY)) == []


def test_importing_the_package_costs_less_than_importing_llama_index() -> None:
    # Side by side on the same machine, because a bound in seconds would measure the machine.
    _, ours = modules_after("import rag_plugin")
    _, theirs = modules_after("import llama_index.core")
    assert ours < theirs


@pytest.mark.parametrize("house", ["rag_plugin", "rag_plugin.embeddings"])
def test_every_door_opens_without_a_framework_or_an_extra(house: str) -> None:
    modules, _ = modules_after(f"from {house} import *")
    assert sorted(modules & set(FRAMEWORKS)) == []
