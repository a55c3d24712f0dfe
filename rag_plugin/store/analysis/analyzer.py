"""From text to terms, by language; the same for passages and queries.

A term is what the sparse leg counts. `Analyzer` splits a text into tokens (`rag_plugin.store.analysis.text`),
takes each token apart, and brings each word to one form: lower case, no stop words, stemmed, accents folded.
"""

from __future__ import annotations

import difflib
import importlib
import threading
from typing import TYPE_CHECKING, Final

import Stemmer

from rag_plugin.errors import InvalidInputError
from rag_plugin.store.analysis.german import german_stem
from rag_plugin.store.analysis.stopwords import STOP_WORDS
from rag_plugin.store.analysis.text import fold_accents, tokens, unify_letters, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ANALYSIS_VERSION: Final = 2
"""Goes up with every change that gives a text other terms, so that an index made before it is rebuilt."""

# Distinct tokens remembered between calls: 2^17 cover a query stream in about 20 MB; past it, start again.
_MEMORY_TOKENS: Final = 1 << 17

LANGUAGES: Final = frozenset(Stemmer.algorithms())
"""The languages with a stemmer, by their Snowball names."""

# Both lower-case and fold accents only. Pairs of characters are made under every analyzer; "cjk" is the name
# that users of Chinese, Japanese and Korean will look for.
_PLAIN: Final = frozenset({"simple", "cjk"})

# Stemmers that measure better than Snowball's for their language.
_OWN_STEMMERS: Final = {"german": german_stem}

# Languages whose stemmer knows no accents, so that "cafés" is stemmed like "cafes".
_FOLDED_FIRST: Final = frozenset({"english", "porter"})


class Analyzer:
    """Turns a text into terms.

    Make one with `Analyzer.named`. Safe to share between threads; pickles by its name.

    Attributes:
        name: What `Analyzer.named` was given; persisted with an index.
    """

    name: str

    def __init__(self, name: str) -> None:
        self.name = name
        self._own: Callable[[str], Iterable[str]] | None = None
        self._stem: Callable[[str], str] | None = None
        self._stop_words: frozenset[str] = frozenset()
        self._memory: dict[str, tuple[str, ...]] = {}
        if ":" in name:
            self._own = _own_analyzer(name)
        elif name in LANGUAGES:
            self._stem = _OWN_STEMMERS.get(name) or _snowball(name)
            self._stop_words = frozenset(self._lowered(word) for word in STOP_WORDS.get(name, ()))
        elif name not in _PLAIN:
            known = sorted(LANGUAGES | _PLAIN)
            near = difflib.get_close_matches(name, known, n=1)
            raise InvalidInputError(
                f"Analyzer {name!r} is not known{f' (did you mean {near[0]!r}?)' if near else ''}. "
                f"Choose one of {', '.join(known)}, or your own as 'package.module:function'."
            )

    @classmethod
    def named(cls, name: str | Analyzer) -> Analyzer:
        """The analyzer of that name.

        Args:
            name: A language by its Snowball name (``"english"``, ``"german"``, …), ``"cjk"``, ``"simple"``, or the
                import path of your own function from a text to its terms, ``"package.module:function"``. An
                analyzer is returned as it is.

        Raises:
            InvalidInputError: No such language, or the import path leads to nothing that can be called.

        Example:
            >>> Analyzer.named("english").terms("The parsers' getUserName in v1.2.3")
            ['parser', 'get', 'user', 'name', 'getusernam', 'v1', '2', '3', '1', 'v1.2.3', '1.2.3']
        """
        return name if isinstance(name, Analyzer) else cls(name)

    @property
    def is_own(self) -> bool:
        """Whether texts are taken apart by your own function."""
        return self._own is not None

    def __reduce__(self) -> tuple[type[Analyzer], tuple[str]]:
        return (Analyzer, (self.name,))

    def __repr__(self) -> str:
        return f"Analyzer.named({self.name!r})"

    def fingerprint(self) -> str:
        """Names everything the terms of a text depend on; equal fingerprints give equal terms.

        Of your own function it knows the import path only: rename the function when you change what it does.
        """
        if self._own is not None:
            return self.name
        snowball = f"/snowball-{Stemmer.version()}" if self.name in LANGUAGES - _OWN_STEMMERS.keys() else ""
        return f"{self.name}/{ANALYSIS_VERSION}{snowball}"

    def terms(self, text: str) -> list[str]:
        """The terms of a text in order, repeats included."""
        memory = self._memory
        found: list[str] = []
        for token in self.tokens(text):
            known = memory.get(token)
            if known is None:
                if len(memory) >= _MEMORY_TOKENS:
                    memory.clear()
                known = memory[token] = self.token_terms(token)
            found.extend(known)
        return found

    def terms_batch(self, texts: Sequence[str]) -> list[list[str]]:
        """The terms of each text."""
        return [self.terms(text) for text in texts]

    def tokens(self, text: str) -> list[str]:
        """What to hand to `token_terms`: a text is analysed as the terms of its tokens, one after the other.

        Raises:
            InvalidInputError: Your own function returned something other than strings.
        """
        if self._own is None:
            return tokens(text)
        found = list(self._own(text))
        for term in found:
            if not isinstance(term, str):
                raise InvalidInputError(
                    f"Analyzer {self.name!r} returned {type(term).__name__} {term!r} among its terms; "
                    "expected strings. Make the function return an iterable of str."
                )
        return found

    def token_terms(self, token: str) -> tuple[str, ...]:
        """The terms of one token: none for a stop word, several for a compound."""
        if self._own is not None:
            # The index file separates terms by NUL.
            return (token.replace("\0", "\ufffd"),)
        parts, compounds = words(token)
        if len(parts) == 1 and not compounds:
            # What most tokens are, without the loops.
            lowered = self._lowered(parts[0])
            term = "" if lowered in self._stop_words else self._term(lowered)
            return (term,) if term else ()
        found = [
            self._term(lowered) for part in parts if (lowered := self._lowered(part)) not in self._stop_words
        ]
        found.extend(fold_accents(self._lowered(compound)) for compound in compounds)
        return tuple(term for term in found if term)

    def _lowered(self, word: str) -> str:
        if self.name == "turkish":
            # Turkish has i with and without a dot, in both cases; Unicode's case folding merges the wrong ones.
            word = word.replace("İ", "i").replace("I", "ı")
        return unify_letters(word.casefold())

    def _term(self, word: str) -> str:
        if self.name in _FOLDED_FIRST:
            word = fold_accents(word)
        # Other stemmers need the accents of their language, so those are folded after stemming.
        return fold_accents(word if self._stem is None else self._stem(word))


def _snowball(language: str) -> Callable[[str], str]:
    # Without its cache of 10,000 words, whose upkeep costs several times what stemming does.
    stemmer = Stemmer.Stemmer(language, 0)
    # It holds the state of the word it is at, so one thread at a time.
    lock = threading.Lock()

    def stem(word: str) -> str:
        with lock:
            stemmed: str = stemmer.stemWord(word)
        return stemmed

    return stem


def _own_analyzer(path: str) -> Callable[[str], Iterable[str]]:
    module_name, _, attribute = path.partition(":")
    try:
        found: object = importlib.import_module(module_name)
        for step in attribute.split("."):
            found = getattr(found, step)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInputError(
            f"Analyzer {path!r} cannot be imported: {error}. Expected 'package.module:function', importable in "
            "every process that opens the store."
        ) from error
    if not callable(found):
        raise InvalidInputError(
            f"Analyzer {path!r} is a {type(found).__name__}; expected a function from a text to its terms."
        )
    return found
