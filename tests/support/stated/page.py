"""A page of the documentation and its numbers: which of them something accounts for.

A number is accounted for in one of these ways:
- `says`: a sentence or a row of a table with the number computed, from a result file or from the
  code. The number is compared as it is printed, so the template states how it is rounded.
- `lets`: a phrase whose numbers are not measured, with the kind of thing that they are.
- The page itself says that a paragraph, or a section, has no result file, and at which commit its
  numbers were measured.
- It is small talk: a whole number up to twelve without a unit, a version, part of a name or code.
"""

import decimal
import re
import string
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from stated import results

Kind = Literal[
    "choice",  # a constant of the method or of an example that nothing in the code has under a name
    "design",  # how a measurement was set up
    "example",  # made up, to explain
    "arithmetic",  # follows from other numbers of the text
    "literature",  # of a source that is named
    "fact",  # about the world: standards, other software
    "rough",  # an order of magnitude, for people who wait
    "elsewhere",  # compared by the test that the page or the list names
]

NUMBER = re.compile(r"(?<![\w@.,])(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+)(?![\w@])")
UNIT = re.compile(r"[\s-]?(?:%|(?:ms|µs|s|seconds|minutes|hours|[KMG]i?B|times|points)\b)")
SMALL = re.compile(r"\d|1[0-2]")
NAMES = re.compile(
    r"Python 3\.\d+(?:\.\d+)?|UTF-\d+|U\+\d+|ISO 8601|\bv?\d+\.\d+\.\d+\b|\bk1\b|XQuAD|SQuAD 2\.0"
)
# what is no prose: other tests run code blocks and follow links
HIDDEN = re.compile(
    r"^```.*?^```$|`[^`\n]+`|(?<=\])\([^)\s]+\)|<!--.*?-->", flags=re.MULTILINE | re.DOTALL
)
NOT_RUN = re.compile(r"```\w+ no-run\n")
ONCE = re.compile(r"at commit [0-9a-f]{7,12}(?: or before it)?[;,] no result file")
SECTION = re.compile(r"numbers of this (?:section|page)")
BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*]|\d\.) )")
PLAIN = str.maketrans({"−": "-", "\u00a0": " "})


def pattern(template: str, values: tuple[object, ...] | None) -> str:
    """A regular expression of a template; without values, of anything in their places.

    A blank matches any white space, so that lines may be wrapped anywhere.
    """
    parts = []
    rest = iter(values or ())
    for text, name, spec, conversion in string.Formatter().parse(template):
        parts.append(_loose(text.translate(PLAIN)))
        if name is None:
            continue
        if values is None:
            parts.append(r"(\S+)")
        else:
            assert conversion is None and not name, "fields have no names"
            parts.append(f"({_loose(printed(next(rest), spec or '').translate(PLAIN))})")
    assert next(rest, None) is None, f"more values than fields: {template}"
    return "".join(parts)


def printed(value: object, spec: str) -> str:
    """A value by a format, its decimal figures rounded as people do: halves go up."""
    if not isinstance(value, float):
        return format(value, spec)
    with decimal.localcontext(rounding=decimal.ROUND_HALF_UP):
        return format(decimal.Decimal(repr(float(value))), spec)


def _loose(text: str) -> str:
    return r"\s+".join(re.escape(word) for word in re.split(r"\s+", text))


@dataclass
class Page:
    """A page while its statements are compared with it.

    Attributes:
        name: Its path in the repository.
        text: What is in it.
        used: The result files that were read for it.
        problems: What is wrong, in words.
    """

    name: str
    text: str
    used: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    _covered: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._plain = self.text.translate(PLAIN)

    def result(self, name: str) -> results.Json:
        """A result file, which the page then has to name with its commit."""
        self.used.add(name)
        return results.result(name)

    def says(self, template: str, *values: object) -> None:
        """State that the page has this text, with these values in the fields of the template."""
        found = list(re.finditer(pattern(template, values), self._plain))
        self._covered += [m.span(i) for m in found for i in range(1, len(values) + 1)]
        if not found:
            wanted = template.format(*values)
            other = re.search(pattern(template, None), self._plain)
            instead = f"it says: {' '.join(other[0].split())}" if other else "no such sentence"
            self.problems.append(f"{self.name} should say: {wanted}\n    {instead}")

    def lets(self, kind: Kind, *phrases: str) -> None:
        """State that the numbers of these phrases are not measured."""
        for phrase in phrases:
            found = list(re.finditer(_loose(phrase.translate(PLAIN)), self._plain))
            self._covered += [m.span() for m in found]
            if not found:
                self.problems.append(f"{self.name} has no more: {phrase} ({kind})")

    def has_footer(self) -> None:
        """State that the page says at which commits its result files were measured."""
        line = results.footer(self.used) if self.used else ""
        there = re.findall(r"^\*Result files were measured at commit.*$", self.text, re.MULTILINE)
        if there != ([line] if line else []):
            self.problems.append(
                f"{self.name} should have this line, and no other like it:\n{line}"
            )
        for found in there:
            self.lets("elsewhere", found)

    def unaccounted(self) -> Iterator[str]:
        """Each number that nothing accounts for, with the words around it."""
        prose = HIDDEN.sub(_hidden, self._plain)
        names = [m.span() for m in NAMES.finditer(prose)]
        spans = self._covered + names + list(measured_once(prose))
        for m in NUMBER.finditer(prose):
            small = SMALL.fullmatch(m[0]) and not UNIT.match(prose, m.end())
            if not small and not any(a <= m.start() and m.end() <= b for a, b in spans):
                around = self.text[max(0, m.start() - 50) : m.end() + 30]
                line = self.text.count("\n", 0, m.start()) + 1
                yield f"{self.name}:{line}: {m[0]} in “{' '.join(around.split())}”"


def _hidden(found: re.Match[str]) -> str:
    """Blanks of the same length; a code block that no test runs is kept, since nothing checks it."""
    return found[0] if NOT_RUN.match(found[0]) else re.sub(r"[^\n]", " ", found[0])


def measured_once(prose: str) -> Iterator[tuple[int, int]]:
    """The parts of a page of which it says that they have no result file.

    A paragraph or an item of a list speaks for itself and for a table right below it. One that says
    "the numbers of this section" speaks for all that follows up to the next heading, and one of
    "this page" for the whole.
    """
    starts = [0, *(m.end() for m in BLOCK.finditer(prose))]
    for begin, end in zip(starts, [*starts[1:], len(prose)], strict=True):
        block = prose[begin:end]
        if not ONCE.search(" ".join(block.split())):
            continue
        wide = SECTION.search(block)
        if wide and "page" in wide[0]:
            yield 0, len(prose)
        elif wide:
            heading = re.compile(r"^#+ ", flags=re.MULTILINE).search(prose, end)
            yield begin, heading.start() if heading else len(prose)
        else:
            below = starts[bisect_right(starts, begin) : bisect_right(starts, begin) + 2]
            is_table = bool(below) and prose[below[0] :].startswith("|")
            yield begin, ([*below, len(prose)][1] if is_table else end)
