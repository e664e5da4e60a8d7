"""The languages whose words are stemmed, their stop words, and which of them texts are in.

It must not know how texts are split into words.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache

from rag_flywheel.records import ENGLISH, NO_LANGUAGE, STEMMED

COMPOUNDING = frozenset({"german", "dutch", "danish", "norwegian", "swedish"})
"""Languages that write compounds as one word."""
_LUCENE_STOPWORDS = (  # for English
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with"
)
_MORE_ENGLISH = (  # by which English is recognised; they are indexed
    "about after all also any been before can could did do does from had has have he her his how i "
    "its may more must my our should so than them us we were what when where which who why would you your"
)
_LEAST_SHARE = 0.08  # of words that must be stop words of a language other than English
_AHEAD = 1.3  # how far that language must be ahead of English
_LEAST = 2.0  # stop words of that language, one shared with others counting less
_MOST_WORDS = 50_000
_LONG_LIST, _SHORT = 300, 4  # words, letters


@cache
def stop_words(language: str) -> frozenset[str]:
    """The stop words of a language, lower case; none for `none`.

    Of a long list only short words: it has words that say something, such as Spanish "cuenta".
    """
    if language == NO_LANGUAGE:
        return frozenset()
    if language == ENGLISH:
        return frozenset(_LUCENE_STOPWORDS.split())
    found = _listed(language)
    return found if len(found) <= _LONG_LIST else frozenset(w for w in found if len(w) <= _SHORT)


@cache
def _listed(language: str) -> frozenset[str]:
    from stop_words import get_stop_words

    found = (word.lower() for word in get_stop_words(language))
    return frozenset(word for word in found if word.isalpha())


def language_of(words: Iterable[str]) -> str:
    """The language that lower-cased words of many texts are in, ENGLISH when none is clear.

    It has the largest share of stop words among them; one that several languages share counts less.
    """
    counts: Counter[str] = Counter()
    for i, word in enumerate(words):
        if i == _MOST_WORDS:
            break
        counts[word] += 1
    weights, total = _weights(), counts.total()
    shares = dict.fromkeys(STEMMED, 0.0)
    for word, n in counts.items():
        for language, weight in weights.get(word, ()):
            shares[language] += n * weight / total
    best = max(STEMMED, key=lambda name: shares[name])
    clear = shares[best] >= max(_LEAST_SHARE, _AHEAD * shares[ENGLISH], _LEAST / max(total, 1))
    return best if clear else ENGLISH


@cache
def _weights() -> dict[str, list[tuple[str, float]]]:
    """By stop word, the languages that have it, each with what it counts for the language."""
    of_word: dict[str, list[str]] = {}
    for language in STEMMED:
        known = stop_words(language) | frozenset(_MORE_ENGLISH.split())
        if language != ENGLISH:
            known = _listed(language)
        for word in known:
            of_word.setdefault(word, []).append(language)
    return {w: [(name, 1.0 / len(names)) for name in names] for w, names in of_word.items()}
