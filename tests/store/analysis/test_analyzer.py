"""What texts become: terms of natural languages, of code, of scripts without spaces, of garbage."""

import pickle
import threading
import unicodedata

import pytest
import Stemmer
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.analysis.analyzer import LANGUAGES, Analyzer
from rag_plugin.store.analysis.stopwords import STOP_WORDS

ENGLISH = Analyzer.named("english")
SIMPLE = Analyzer.named("simple")


def whitespace(text):
    """An analyzer of one's own."""
    return text.split()


def broken(text):
    return [len(text)]


NOT_A_FUNCTION = "english"


def found(analyzer, query, passage):
    """Whether every term of the query is one of the passage."""
    terms = Analyzer.named(analyzer).terms(query)
    return bool(terms) and set(terms) <= set(Analyzer.named(analyzer).terms(passage))


def test_english_is_lower_cased_stemmed_and_freed_of_stop_words():
    assert ENGLISH.terms("The Foxes were running") == ["fox", "run"]


@pytest.mark.parametrize(
    ("language", "query", "passage"),
    [
        ("english", "john", "John's"),
        ("english", "cafe", "two cafés"),
        ("english", "naive", "NAÏVE"),
        ("german", "Haus", "die Häuser"),
        ("german", "Strasse", "auf der Straße"),
        ("german", "Buecher".replace("ue", "u"), "Bücher"),
        ("french", "homme", "l'homme"),
        ("french", "eleve", "les élèves"),
        ("spanish", "canción", "canciones"),
        ("italian", "amico", "dell'amica"),
        ("portuguese", "informação", "informações"),
        ("russian", "книга", "книги"),
        ("russian", "елка", "ёлка"),
        ("arabic", "كتاب", "الكِتَاب"),
        ("arabic", "مدرسة", "مـدرسـة"),
        ("turkish", "ırmak", "IRMAK"),
        ("turkish", "istanbul", "İstanbul"),
        ("greek", "λόγος", "ΛΟΓΟΣ"),
        ("hindi", "किताब", "किताबें"),
        ("finnish", "talo", "taloissa"),
    ],
)
def test_inflected_and_accented_forms_find_each_other(language, query, passage):
    assert found(language, query, passage)


@pytest.mark.parametrize(
    ("query", "passage"),
    [
        ("snake_case", "call snake_case here"),
        ("snake", "call snake_case here"),
        ("case", "call snake_case here"),
        ("CamelCase", "a CamelCase name"),
        ("camelcase", "a CamelCase name"),
        ("camel", "a CamelCase name"),
        ("HTTPServer", "class HTTPServer:"),
        ("server", "class HTTPServer:"),
        ("http", "class HTTPServer:"),
        ("getUserName", "obj.getUserName()"),
        ("user name", "obj.getUserName()"),
        ("foo.bar", "x = foo.bar()"),
        ("foo.bar()", "see foo.bar."),
        ("bar", "x = foo.bar()"),
        ("std::vector", "std::vector<int>"),
        ("vector", "std::vector<int>"),
        ("v1.2.3", "since v1.2.3."),
        ("1.2.3", "since v1.2.3."),
        ("v1", "since v1.2.3."),
        ("user@example.org", "<user@example.org>"),
        ("user", "<user@example.org>"),
        ("example", "<user@example.org>"),
        ("__init__", "def __init__(self)"),
        ("init", "def __init__(self)"),
        ("c++", "written in C++, not C"),
        ("C#", "a c# class"),
        ("3.14", "pi is 3.14"),
        ("1000", "1,000 genomes"),
        ("1,000", "1000 genomes"),
        ("IL6", "interleukin IL-6"),
        ("RNA", "RNAs"),
        ("url", "two URLs"),
        ("RNA", "mRNA"),
        ("miRNA", "several miRNAs"),
        ("mirna", "several miRNAs"),
        ("foo.barBaz_qux", "foo.barBaz_qux"),
        ("barbaz", "foo.barBaz_qux"),
        ("ＰＤＦ", "a PDF"),
        ("well known", "well-known"),
        ("covid19", "COVID-19"),
    ],
)
def test_identifiers_and_numbers_are_found_whole_and_by_their_parts(query, passage):
    assert found("english", query, passage)


@pytest.mark.parametrize(
    ("query", "passage"),
    [("c++", "plain C"), ("snake_case", "a case of snakes"), ("foo.bar", "foo and bar"), ("1.2.3", "1.2.4")],
)
def test_a_whole_identifier_is_more_than_its_parts(query, passage):
    assert not found("english", query, passage)


@pytest.mark.parametrize("analyzer", ["cjk", "english", "simple", "german"])
def test_scripts_without_spaces_become_pairs_under_every_analyzer(analyzer):
    terms = Analyzer.named(analyzer).terms
    assert terms("检索系统") == ["检索", "索系", "系统"]
    assert terms("猫") == ["猫"]
    assert terms("東京タワー") == ["東京", "京タ", "タワ", "ワー"]
    assert found(analyzer, "학교", "학교에서")
    assert found(analyzer, "ภาษา", "ภาษาไทย")
    assert set(terms("使用Python语言")) == {"使用", "语言", *terms("python")}
    assert set(terms("2019年")) == {"2019", "年"}
    assert terms("ﾃﾞｰﾀ") == terms("データ")


def test_vowel_signs_stay_with_their_letters():
    assert SIMPLE.terms("हिन्दी भाषा") == [unicodedata.normalize("NFC", word) for word in ("हिन्दी", "भाषा")]
    assert SIMPLE.terms("й и") == ["й", "и"]


def test_arabic_marks_and_tatweel_are_decoration():
    assert SIMPLE.terms("مُحَمَّد") == SIMPLE.terms("محمد") == SIMPLE.terms("محمـــد")
    assert SIMPLE.terms("أحمد") == SIMPLE.terms("احمد")


def test_composed_and_decomposed_letters_are_the_same():
    text = "Crème brûlée à Ångström, Việt Nam"
    assert ENGLISH.terms(unicodedata.normalize("NFD", text)) == ENGLISH.terms(
        unicodedata.normalize("NFC", text)
    )


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_snowball_language_has_an_analyzer_and_stop_words(language):
    analyzer = Analyzer.named(language)
    words = STOP_WORDS[language]
    assert analyzer.terms(" ".join(words)) == [] or language in {"irish", "sesotho"}
    assert analyzer.terms("1984") == ["1984"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t\n",
        "\0",
        "a\0b",
        "\ud800",
        "x\udfffy",
        "🙂👩‍👩‍👧",
        "\u202eשלום",
        "\u0301",
        "\u200d",
        "___",
        "...",
        "@@",
        "-",
        "a" * 1_000_000,
        "a." * 500_000,
        "好" * 300_000,
        "aB" * 300_000,
        "\u0301" * 100_000,
        "ﷺ" * 1000,
        "١٢٣",
    ],
    ids=lambda text: f"{text[:3]!r}x{len(text)}",
)
@pytest.mark.parametrize("name", ["english", "arabic", "cjk"])
def test_hostile_texts_are_analysed_in_bounded_pieces(name, text):
    terms = Analyzer.named(name).terms(text)
    assert all(0 < len(term) <= 2000 for term in terms)
    assert not any("\0" in term for term in terms)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.sampled_from(["english", "german", "arabic", "turkish", "cjk", "simple"]))
def test_any_text_finds_itself_and_gives_clean_terms(text, name):
    analyzer = Analyzer.named(name)
    terms = analyzer.terms(text)
    assert terms == analyzer.terms(text)
    assert terms == [term for token in analyzer.tokens(text) for term in analyzer.token_terms(token)]
    assert all(term and not any(letter.isspace() or letter == "\0" for letter in term) for term in terms)
    assert Analyzer.named(name).terms_batch([text, text]) == [terms, terms]


def test_an_own_function_is_taken_by_its_import_path():
    analyzer = Analyzer.named("tests.store.analysis.test_analyzer:whitespace")
    assert analyzer.terms("The  Foxes\0 ran") == ["The", "Foxes\ufffd", "ran"]
    assert pickle.loads(pickle.dumps(analyzer)).terms("A b") == ["A", "b"]


@pytest.mark.parametrize(
    "name",
    [
        "klingon",
        "",
        "no_such_module:function",
        "tests.store.analysis.test_analyzer:no_such_function",
        "tests.store.analysis.test_analyzer:NOT_A_FUNCTION",
    ],
)
def test_an_unknown_analyzer_is_refused(name):
    with pytest.raises(InvalidInputError):
        Analyzer.named(name)


def test_a_misspelt_name_is_corrected():
    with pytest.raises(InvalidInputError, match="did you mean 'english'"):
        Analyzer.named("englsh")


def test_an_own_function_that_returns_no_strings_is_refused():
    with pytest.raises(InvalidInputError, match="expected strings"):
        Analyzer.named("tests.store.analysis.test_analyzer:broken").terms("abc")


def test_fingerprints_tell_analyzers_and_stemmers_apart():
    names = ["english", "german", "simple", "cjk", "tests.store.analysis.test_analyzer:whitespace"]
    assert len({Analyzer.named(name).fingerprint() for name in names}) == len(names)
    assert Stemmer.version() in ENGLISH.fingerprint()
    assert Analyzer.named(ENGLISH) is ENGLISH


def test_threads_share_one_analyzer():
    analyzer = Analyzer.named("english")
    texts = [f"running foxes number{number} jumped quickly {number}" for number in range(400)]
    expected = Analyzer.named("english").terms_batch(texts)
    results = [None] * 4

    def work(slot):
        results[slot] = analyzer.terms_batch(texts)

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result == expected for result in results)
