"""Makes text of strangers safe to show: on terminals, in logs, on pages, and in spreadsheets.

It knows characters, and must not know what is shown.
"""

import json
import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but tab and newline: ESC starts terminal commands
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # turn the direction of what stands around them
    "\u200b\u2028\u2029\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb"  # cannot be seen, or break lines
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_SMUGGLED = re.compile(
    "[\U000e0100-\U000e01ef]|[\ufe00-\ufe0f]{2,}"
)  # letters as variants of others
_BREAKS = re.compile("[\t\n]")
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_MADE_HARMLESS = re.compile(r"'+[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def printable(text: str) -> str:
    r"""The text with control, direction and invisible characters as escapes such as \x1b or \u202e.

    Tabs and newlines stay, and the joiners that Persian and emoji need.
    """
    return _UNSAFE.sub(_escaped, text)


def printable_line(text: str) -> str:
    r"""The same for what stands in one line, such as an id: tabs and newlines are \t and \n."""
    return _BREAKS.sub(_escaped, printable(text))


def printable_json(text: str) -> str:
    """JSON that means the same, with such characters in its strings as escapes of JSON."""
    return _UNSAFE.sub(lambda match: json.dumps(match[0])[1:-1], text)


def visible(text: str) -> str:
    """The text without control, direction and invisible characters, for readers that see every character.

    A language model reads what people cannot see, so that texts of strangers could say more than they show.
    """
    return _SMUGGLED.sub("", _UNSAFE.sub("", text))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")


def harmless_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: ' stands before one that begins like one."""
    return f"'{text}" if _FORMULA.match(text) else text


def cell_as_written(text: str) -> str:
    """The text that `harmless_cell` made this cell of."""
    return text[1:] if _MADE_HARMLESS.match(text) else text
