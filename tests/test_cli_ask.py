"""`rag-plugin ask`: quoted or written by a language model behind OpenAI's protocol, cited either way."""

from __future__ import annotations

import json

import pytest

from tests.hostile_llm import fails, hostile_server, says

pytestmark = pytest.mark.models

BOILER = "Descale the boiler twice a year with citric acid."
QUESTION = "How often must the boiler be descaled?"


@pytest.fixture
def ask(shell, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "boiler.md").write_text(f"# Boiler\n\n{BOILER} The filter lasts five years.\n")
    (docs / "stove.txt").write_text("The stove burns beech and oak. Never burn painted wood in it.\n")
    assert shell("index", str(docs)).code == 0

    def run(*arguments: str):
        return shell("ask", *arguments)

    return run


def test_without_a_language_model_the_best_sentence_is_quoted_with_its_file(ask) -> None:
    code, out, err = ask(QUESTION)
    assert (code, err) == (0, "")
    answer, source, evidence = out.splitlines()
    assert answer == f"{BOILER} [1]"
    assert source == "[1] Boiler (docs/boiler.md)"
    assert evidence.startswith("evidence ")


def test_what_the_documents_do_not_say_is_exit_status_one(ask) -> None:
    code, out, err = ask("Who won the football world cup in 1974?")
    assert (code, err) == (1, "")
    assert out.startswith("The documents do not say.\nevidence ")


def test_json_holds_the_answer_its_citations_and_their_sources(ask) -> None:
    code, out, err = ask(QUESTION, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["answer"], told["answered"], told["degraded"]) == (f"{BOILER} [1]", True, None)
    (citation,) = told["citations"]
    source = told["sources"][citation["number"] - 1]
    assert source["doc_id"] == "docs/boiler.md"
    assert source["text"][citation["start"] : citation["end"]] == BOILER


def test_a_language_model_behind_openais_protocol_writes_the_answer(ask, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with hostile_server(says("The boiler is descaled twice a year [1].")) as server:
        code, out, err = ask(QUESTION, "--model", "house", "--api-base", server.url)
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == ["The boiler is descaled twice a year [1].", "[1] Boiler (docs/boiler.md)"]
    (body,) = server.bodies
    assert body["model"] == "house"
    assert BOILER in body["messages"][-1]["content"]


def test_a_language_model_that_is_down_costs_the_wording_and_says_so(ask) -> None:
    with hostile_server(fails(401)) as server:
        code, out, err = ask(QUESTION, "--model", "house", "--api-base", server.url)
    assert code == 0
    assert out.startswith(f"{BOILER} [1]\n")
    assert err.startswith("quoted, since ")
    assert err.count("\n") == 1


def test_what_a_language_model_writes_cannot_command_the_terminal(ask) -> None:
    with hostile_server(says("\x1b[2JThe boiler is [red]descaled[/red] twice a year.\u202e")) as server:
        code, out, _ = ask(QUESTION, "--model", "house", "--api-base", server.url)
    assert code == 0
    assert "[red]descaled[/red]" in out
    assert not set(out) & {"\x1b", "\u202e"}


def test_a_higher_bar_for_evidence_is_obeyed(ask) -> None:
    assert ask(QUESTION, "--min-evidence", "1").code == 1
