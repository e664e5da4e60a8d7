"""Judges whether a text is an edit or a copy of another one, and sketches texts so that edits are found.

Texts are compared word by word, without regard to blanks, letters' case, and marks between words. It
must not know where texts are stored, nor what votes are.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import groupby
from operator import ne
from unicodedata import normalize

import numpy as np
import regex

Block = tuple[Sequence[str], Sequence[str]]
"""The words of one edit: those that were replaced, and those that replace them."""
_Op = tuple[bool, int, int, int, int]
"""Whether words change; their start and end in the old text, and in the new one."""
MOST_WORDS = 20_000
"""Of a text that is compared word by word; one with more is near-identical to the same words alone."""
N_KEYS = 8
_IN_DETAIL = 2_000  # words of a text whose single edits are looked at
_CLAUSE = 4  # words that are added or taken out together, from which they may say anything
_ONE_IN = 20  # words between two misspelt ones in copies
_MISSPELT = 0.2  # of the words, at most, where one is the edit of another
_TOKEN = regex.compile(
    r"(?:(?<![\p{L}\p{N}])[-\u2212+])?\p{N}+(?:[.,:/]\p{N}+)*"  # a number, with its sign
    r"|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
    r"|\p{L}[\p{L}\p{M}]*(?:['\u2019]\p{L}[\p{L}\p{M}]*)*"
    r"|(?<=\p{L})(?:\+\+|\#)|[!<>=]=|[<>=\u2260\u2264\u2265\u00b1%\u2030\u00b0\p{Sc}]"
)
_ASCII_TOKEN = re.compile(  # the same of ASCII, in half the time
    r"[A-Za-z]+(?:'[A-Za-z]+)*|(?:(?<![A-Za-z0-9])[-+])?[0-9]+(?:[.,:/][0-9]+)*"
    r"|(?<=[A-Za-z])(?:\+\+|\#)|[!<>=]=|[<>=%$]"
)
# Words that turn what a text says. Numbers and signs do so in every language.
_NEGATIONS = """
no not never none nor neither without cannot nothing nobody nowhere hardly only except unless
nicht kein keine keinen keiner keinem nie niemals ohne nur
pas jamais sans aucun aucune ni rien sin nunca jamás nada ningún ninguna sem não nem
non senza mai niet geen nooit zonder ikke ingen aldrig inte
не нет без ни 不 没 未 非 无 勿 别 な ぬ
"""
_OTHERS_THAT_TURN = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand
million billion half twice once double first second third last
monday tuesday wednesday thursday friday saturday sunday
january february march april may june july august september october november december
yes true false on off in out up down before after above below over under more less most least fewer
minimum maximum min max always all any some every either both and or but
must should can could might shall allow allowed deny denied forbid forbidden forbids
enable enabled enables disable disabled disables required optional include exclude increase decrease
left right open close opened closed start stop begin end hot cold high low new old
"""
_NEGATING = frozenset(_NEGATIONS.split())
_TURNING = frozenset(_OTHERS_THAT_TURN.split()) | _NEGATING
_SMALL_WORDS = """
a an the this that these those is are was were be been being it its of please just also
"""
_SMALL = frozenset(_SMALL_WORDS.split())
_PRIME = np.uint64(0xFF51AFD7ED558CCD)
_ODD = np.array([0x9E3779B97F4A7C15 * (2 * i + 1) & (2**64 - 1) for i in range(N_KEYS)], np.uint64)


@dataclass(frozen=True)
class Words:
    """The words of a text as they are compared, numbers and some signs among them."""

    text: str
    folded: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Words":
        """The words of any text; marks alone are words themselves."""
        return cls(text, _split(_folded(text)))

    @cached_property
    def raw(self) -> tuple[str, ...]:
        """The words as they stand."""
        return _split(self.text)

    @cached_property
    def turning(self) -> list[str]:
        """The words and signs, in order, that turn what the text says."""
        return [word for word in self.folded if turns(word)]

    def digest(self) -> bytes:
        """16 bytes that name the words."""
        joined = "\n".join(self.folded).encode("utf-8", "surrogatepass")
        return blake2b(joined, digest_size=16).digest()


def turns(word: str) -> bool:
    """Whether a folded word turns what a text says: a number, a sign, or a word such as "not"."""
    return word in _TURNING or not word[0].isalpha() or word[-1] in "#+" or word.endswith("n't")


def negates(word: str) -> bool:
    """Whether a folded word negates or limits what a text says."""
    return word in _NEGATING or word.endswith("n't")


def near_identical(old: Words, new: Words, least: float) -> bool:
    """Whether `new` is an edit of `old` that says the same.

    At least the share `least` of the words stays, as a difflib ratio over words; words that are only
    spelled differently stay, and small words such as "the" do not count. Where single words are
    replaced, none may be a number, a sign, or a word that turns the meaning; where some are added or
    taken out, none may negate. least of 1 or more: no word may change.
    """
    if old.folded == new.folded:
        return True
    sizes = len(old.folded), len(new.folded)
    if least >= 1.0 or max(sizes) > MOST_WORDS or 2.0 * min(sizes) + 4 < least * sum(sizes):
        return False
    from rapidfuzz.distance import Indel, Levenshtein  # 30 ms to load

    if max(sizes) > _IN_DETAIL:
        same = Indel.normalized_similarity(old.folded, new.folded, score_cutoff=least) >= least
        return same and old.turning == new.turning
    opcodes = [
        (op.tag != "equal", op.src_start, op.src_end, op.dest_start, op.dest_end)
        for op in Levenshtein.opcodes(old.folded, new.folded)
    ]
    n_changed, n_misspelt = 0, 0
    for before, after in _blocks(opcodes, old.folded, new.folded):
        if _misspelt(before, after):
            n_misspelt += min(len(before), len(after))
            continue
        if not _keeps_meaning(before, after):
            return False
        n_changed += sum(word not in _SMALL for word in (*before, *after))
    return n_changed <= (1.0 - least) * sum(sizes) + 1e-9 and n_misspelt <= max(
        1.0, _MISSPELT * max(sizes)
    )


def is_copy(one: Words, other: Words) -> bool:
    """Whether two texts are copies: the same words, or one in twenty is spelled differently, which is
    no name (a word with a capital)."""
    if one.folded == other.folded:
        return True
    if len(one.folded) != len(other.folded):
        return False
    n_different = sum(map(ne, one.folded, other.folded))
    if n_different * _ONE_IN > len(one.folded):
        return False
    if (len(one.raw), len(other.raw)) != (len(one.folded), len(other.folded)):
        return False
    pairs = zip(one.raw, other.raw, one.folded, other.folded, strict=True)
    different = [(a, b) for a, b, x, y in pairs if x != y]
    return all(a[0].islower() and b[0].islower() and _spelled_alike(a, b) for a, b in different)


def may_be_copy(text: str, other: Words) -> bool:
    """False for most texts that are no copy, without reading their words: for those that lack more than
    one word in twenty."""
    folded = _folded(text)
    whole = folded if folded.isascii() else normalize("NFKC", folded)
    most = len(other.folded) // _ONE_IN
    n_missing = 0
    for word in other.folded:
        n_missing += word not in whole and word not in folded
        if n_missing > most:
            return False
    return True


def similarity(one: Words, other: Words) -> float:
    """The share of words that two texts have in common, in order, 0 to 1."""
    from rapidfuzz.distance import Indel

    a, b = one.folded[:_IN_DETAIL], other.folded[:_IN_DETAIL]
    return float(Indel.normalized_similarity(a, b))


def sketch(words: Words) -> list[int]:
    """Eight numbers, of which texts that share half of their words and pairs of words have one in common
    almost always (min-wise hashing: Broder, On the Resemblance and Containment of Documents, 1997)."""
    encoded = [b" " + word.encode("utf-8", "surrogatepass") for word in words.folded]
    single = [zlib.crc32(word[1:]) for word in encoded]
    pairs = map(zlib.crc32, encoded[1:], single)  # goes on from a word to the next one
    hashes = np.array([*single, *pairs], dtype=np.uint64)
    mixed = (hashes[:, None] + np.uint64(1)) * _ODD[None, :]
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _PRIME
    mixed ^= mixed >> np.uint64(29)
    keys: list[int] = (mixed.min(axis=0) ^ _ODD).view(np.int64).tolist()
    return keys


def _folded(text: str) -> str:
    return text.casefold().replace("\u2019", "'")


def _split(text: str) -> tuple[str, ...]:
    if text.isascii():
        return tuple(_ASCII_TOKEN.findall(text)) or tuple(text.split())
    return tuple(_TOKEN.findall(normalize("NFKC", text))) or tuple(text.split())


def _blocks(opcodes: Sequence[_Op], old: Sequence[str], new: Sequence[str]) -> Iterator[Block]:
    """The edits; those without a word between them are one."""
    for changed, ops in groupby(opcodes, key=lambda op: op[0]):
        if changed:
            every = list(ops)
            yield old[every[0][1] : every[-1][2]], new[every[0][3] : every[-1][4]]


def _keeps_meaning(before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether one edit leaves numbers, signs and other words that turn the meaning as they are. Words may
    be added or taken out unless they negate; a whole clause may say anything."""
    if before and after:
        return list(filter(turns, before)) == list(filter(turns, after))
    return max(len(before), len(after)) >= _CLAUSE or not any(map(negates, (*before, *after)))


def _misspelt(before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether an edit changes only how words are spelled, or written together."""
    if not before or not after:
        return False
    if "".join(before) == "".join(after):
        return all(word[0].isalpha() for word in (*before, *after))
    return len(before) == len(after) and all(map(_spelled_alike, before, after))


def _spelled_alike(a: str, b: str) -> bool:
    """Whether one word is most likely the other, misspelt: with the same first letter, one letter (two
    from eight letters on) is added, missing, wrong or exchanged. Words of three letters and fewer are
    too short to tell, but for exchanged letters."""
    if a == b:
        return True
    if a[0] != b[0] or turns(a) or turns(b) or not (a + b).isalpha():
        return False
    from rapidfuzz.distance import OSA

    most = 1 if min(len(a), len(b)) < 8 else 2
    if max(len(a), len(b)) < 4 and sorted(a) != sorted(b):
        return False
    return OSA.distance(a, b, score_cutoff=most) <= most
