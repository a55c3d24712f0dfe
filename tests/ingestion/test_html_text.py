from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rag_plugin.ingestion.html_text import text_of_html


def test_blocks_become_paragraphs_and_the_title_is_kept():
    page = """<!doctype html><html><head><title> A &amp; B </title><style>p {color: red}</style></head>
    <body><h1>Heading</h1><p>First   <b>bold</b>
    line.</p><p>Second<br>line.</p></body></html>"""
    assert text_of_html(page) == ("A & B", "Heading\n\nFirst bold line.\n\nSecond\nline.")


def test_the_first_heading_stands_in_for_a_missing_title():
    assert text_of_html("<h1>One</h1><p>x</p><h1>Two</h1>")[0] == "One"


def test_scripts_styles_and_templates_are_not_text():
    page = "<p>a</p><script>if (1 < 2) {}</script><style>b{}</style><template><p>c</p></template><p>d</p>"
    assert text_of_html(page) == ("", "a\n\nd")


def test_preformatted_text_keeps_its_lines_and_indentation():
    _, text = text_of_html("<p>See</p><pre>def f():\n    return 1\n</pre>")
    assert "def f():\n    return 1" in text


def test_lists_and_tables_keep_their_rows():
    _, text = text_of_html(
        "<ul><li>a</li><li>b</li></ul><table><tr><th>x</th><td>1</td></tr><tr><td>2</td></tr></table>"
    )
    assert text == "- a\n- b\n\nx\t1\n2"


def test_a_head_that_was_never_closed_hides_nothing():
    assert text_of_html("<head><title>T</title><body><p>text</p>") == ("T", "text")


@settings(max_examples=500)
@given(st.text(alphabet="<>/!-=\"'& ap\n;#x[]?", max_size=60))
@example("<![;")
def test_broken_markup_never_raises(markup):
    text_of_html(markup)
