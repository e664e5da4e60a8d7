"""Finds personal data that have a form of their own in texts, and masks them.

E-mail addresses, telephone numbers, IBANs, numbers of payment cards, US social security numbers and public
IP addresses. It must not know where texts come from. Names and addresses of people have no such form:
`privacy/presidio.py` finds them by a model. Needs the extra `pii`.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from rag_flywheel.errors import ConfigError

KINDS = ("EMAIL", "IBAN", "CARD", "PHONE", "SSN", "IP")
"""What is found; where two overlap, the first of these."""
_PACKAGES = ("phonenumbers", "stdnum")
_EMAIL = re.compile(r"[^\s@<>()\[\],;:\"|=]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_][\w-]{1,62}")
_QUOTED_EMAIL = re.compile(r"\"[^\"\n@]{1,62}\"@(?:[\w-]{1,63}\.){1,8}[^\W\d_][\w-]{1,62}")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}")
_CARD = re.compile(r"(?<![\w.,])(?<![0-9][ -])[2-6](?:[ -]?[0-9]){12,18}(?!\w|[.,][0-9])")
_SSN = re.compile(r"(?<![\w-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![\w-])")
_IPV4 = re.compile(r"(?<![\w.-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w-]|\.[0-9])")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_PHONE = re.compile(r"(?:[+＋(\[]\s?){0,2}\d(?:[\s()\[\].\-‐‑‒–/]{0,3}\d){5,17}")
_CARD_LENGTHS = {
    "2": (16,),
    "3": (14, 15, 16),
    "4": (13, 16, 19),
    "5": (12, 16),
    "6": range(14, 20),
}
_SHORTEST_IBAN = 15
_AROUND = 8  # characters around a number that tell whether it is one: a time follows a date


@dataclass(frozen=True, order=True)
class Found:
    """Personal data in a text, from character `start` up to `end`; kind: one of KINDS."""

    start: int
    end: int
    kind: str


def find_pii(text: str, regions: Sequence[str] = ()) -> list[Found]:
    """The personal data in a text, in order, none overlapping another.

    regions: countries, as "DE", of which telephone numbers are found as they are written there; those
    that begin with + are found whatever the country. Takes time in proportion to the text.
    """
    taken: list[Found] = []
    for kind, spans in zip(KINDS, _finders(text, regions), strict=True):
        new = [Found(start, end, kind) for start, end in spans]
        taken = _without_overlaps(taken, new)
    return taken


def masked(text: str, found: Iterable[Found]) -> str:
    """A text with a word for each of these, in order, in its place: [EMAIL], [PHONE], ..."""
    parts, last = [], 0
    for each in found:
        parts += [text[last : each.start], f"[{each.kind}]"]
        last = each.end
    return "".join([*parts, text[last:]])


def mask_pii(text: str) -> str:
    """A text with a word in the place of all personal data that `find_pii` finds."""
    return masked(text, find_pii(text))


def pii_mask(regions: Sequence[str] = ()) -> Callable[[str], str]:
    """`mask_pii` that also finds telephone numbers as they are written in these countries, as "DE".

    Raises ConfigError for an unknown country, or when the extra is not installed.
    """
    require_pii_extra()
    from phonenumbers import SUPPORTED_REGIONS

    unknown = sorted(set(regions) - set(SUPPORTED_REGIONS))
    if unknown:
        raise ConfigError(f"found the country {unknown[0]!r}; expected two letters, as DE or US")
    return lambda text: masked(text, find_pii(text, regions))


def require_pii_extra() -> None:
    """Raises ConfigError when a package of the extra is not installed."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{missing[0]} is not installed; expected the packages of the extra pii: "
            "pip install 'rag-flywheel[pii]'"
        )


def _finders(text: str, regions: Sequence[str]) -> Iterator[Iterable[tuple[int, int]]]:
    """The spans of each of KINDS."""
    yield from (
        _emails(text) if "@" in text else (),
        _ibans(text),
        _cards(text),
        _phones(text, regions),
        _ssns(text),
        _ips(text),
    )


def _emails(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (_QUOTED_EMAIL, _EMAIL):
        yield from (match.span() for match in pattern.finditer(text))


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    from stdnum import iban

    for match in _IBAN.finditer(text):
        places = [i for i in range(*match.span()) if text[i].isalnum()]
        number = "".join(text[i] for i in places).upper()
        for length in range(len(number), _SHORTEST_IBAN - 1, -1):
            rest = number[:length]
            if _remainder(rest) == 1 and iban.is_valid(rest, check_country=False):
                yield match.start(), places[length - 1] + 1
                break


def _remainder(number: str) -> int:
    """Of the number that an IBAN stands for, divided by 97 (ISO 13616)."""
    return int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97


def _cards(text: str) -> Iterator[tuple[int, int]]:
    from stdnum import luhn

    for match in _CARD.finditer(text):
        number = re.sub("[ -]", "", match[0])
        if len(number) in _CARD_LENGTHS[number[0]] and luhn.is_valid(number):
            yield match.span()


def _phones(text: str, regions: Sequence[str]) -> Iterator[tuple[int, int]]:
    for match in _PHONE.finditer(text):
        international = match[0].lstrip("([ ").startswith(("+", "＋"))
        if international and _is_number("+" + re.sub(r"\D", "", match[0])):
            yield match.span()
            continue
        offset = max(0, match.start() - _AROUND)
        part = text[offset : match.end() + _AROUND]
        for country in (None, *regions) if international else regions:
            if spans := _numbers_in(part, country):
                yield from ((offset + start, offset + end) for start, end in spans)
                break


def _is_number(digits: str) -> bool:
    """Whether these digits after a + are a telephone number of some country."""
    import phonenumbers

    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(digits)))
    except phonenumbers.NumberParseException:
        return False


def _numbers_in(text: str, country: str | None) -> list[tuple[int, int]]:
    from phonenumbers import Leniency, PhoneNumberMatcher

    return [(m.start, m.end) for m in PhoneNumberMatcher(text, country, leniency=Leniency.VALID)]


def _ssns(text: str) -> Iterator[tuple[int, int]]:
    from stdnum.us import ssn

    return (match.span() for match in _SSN.finditer(text) if ssn.is_valid(match[0]))


def _ips(text: str) -> Iterator[tuple[int, int]]:
    """Public addresses; those of networks at home name nobody."""
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            try:
                address = ipaddress.ip_address(match[0])
            except ValueError:
                continue
            if address.is_global:
                yield match.span()


def _without_overlaps(taken: list[Found], new: list[Found]) -> list[Found]:
    """All of both, in order, without those new ones that overlap another."""
    if not new:
        return taken
    kept: list[Found] = []
    of_before = set(taken)
    for each in sorted([*taken, *new], key=lambda f: (f.start, f not in of_before)):
        if not kept or each.start >= kept[-1].end:
            kept.append(each)
        elif each in of_before and kept[-1] not in of_before:
            kept[-1] = each
    return kept
