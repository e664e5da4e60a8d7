"""Builds the demo collection: standard library docstrings as passages, and user needs with answers."""

import contextlib
import fnmatch
import importlib
import inspect
import json
import re
import warnings
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from types import ModuleType
from typing import Any

from rag_flywheel.records import Passage

# In order of preference: an object found under several names keeps the first of them.
# Only modules whose import neither prints, warns nor changes the process are named.
_MODULES = """
builtins string re difflib textwrap unicodedata struct codecs datetime zoneinfo calendar collections
collections.abc heapq bisect array weakref types copy pprint enum graphlib math decimal fractions
random statistics itertools functools operator pathlib os.path fileinput filecmp tempfile glob
fnmatch linecache shutil pickle shelve sqlite3 zlib gzip bz2 lzma zipfile tarfile csv configparser
tomllib hashlib hmac secrets os io time argparse logging logging.config logging.handlers getpass
shlex platform threading multiprocessing multiprocessing.pool concurrent.futures subprocess sched
queue contextvars asyncio socket ssl signal email email.message email.utils json mimetypes base64
binascii html html.parser xml.etree.ElementTree webbrowser urllib.request urllib.parse urllib.error
http http.client smtplib uuid http.server ipaddress locale typing doctest unittest unittest.mock
faulthandler pdb timeit cProfile trace tracemalloc venv zipapp sys warnings dataclasses abc
contextlib atexit traceback gc inspect runpy importlib importlib.metadata importlib.resources ast
"""

# Classes whose methods are passages too; a method goes under the listed class that defines it.
_CLASSES = """
str bytes list dict set int float collections.Counter collections.deque collections.OrderedDict
pathlib.PurePath pathlib.Path datetime.datetime datetime.date datetime.timedelta re.Pattern re.Match
difflib.SequenceMatcher io.IOBase threading.Thread threading.Condition threading.Event queue.Queue
subprocess.Popen logging.Logger logging.Handler logging.Formatter zipfile.ZipFile tarfile.TarFile
argparse.ArgumentParser string.Template json.JSONEncoder json.JSONDecoder
configparser.RawConfigParser sqlite3.Connection sqlite3.Cursor socket.socket
concurrent.futures.Executor concurrent.futures.Future asyncio.Queue unittest.TestCase
unittest.mock.NonCallableMock contextlib.ExitStack email.message.EmailMessage html.parser.HTMLParser
xml.etree.ElementTree.Element xml.etree.ElementTree.ElementTree smtplib.SMTP ipaddress.IPv4Address
ipaddress.IPv4Network multiprocessing.pool.Pool sched.scheduler graphlib.TopologicalSorter
"""

# System calls, inner steps of protocols, second spellings, and hooks which programs replace.
_NOISE = """
*hook *Message.*_[bcdrt]* *Message.*param* ?*Warning [!jsu]*.*Error asyncio.*event_loop*
asyncio.*Handle asyncio.*Protocol asyncio.*Transport bytes.[!dh]* doctest.[A-Z]* inspect.getfile
operator.[dfglnprs]* operator.i[!t]* os.*[gru]id os.*[gs]etsid os.*_* os.*groups os.*pgrp
os.*priority os.*pt* os.*xattr os.[cd][lu]* os.exec* os.f[acdilpt]* os.fstat* os.l[ocs]* os.mk[fn]*
os.p[irw]* os.read? os.sp* os.tc* os.W* os.wait* os.write* pdb.set_trace s*.SMTP[ERS]* s[hms]*Error
signal.[ps]*_* signal.sig[!n]* smtplib.SMTP.[!ls]* socket.*.*_into socket.*msg* socket.[CSi]*_*
sys.*_*_* tarfile.*.make* threading.*.[gs]et[ND]* time.*clock* typing.Supports*
"""
_NOISE_NAME = re.compile("|".join(fnmatch.translate(pattern) for pattern in _NOISE.split()))
_Named = tuple[str, Any]  # a name in a module or a class, and what it names
_SHORTEST, _LONGEST, _TITLE = 15, 2_000, 120
_PLAIN = re.compile(r"None|True|False|-?\d[\d.e]*|'[^/\\]*'")  # the same in every process


@dataclass(frozen=True)
class Need:
    """One thing users look for: three ways to ask, and the passages which answer."""

    id: str
    phrasings: tuple[str, str, str]
    answers: tuple[str, ...]


def stdlib_passages() -> list[Passage]:
    """Return the passages of the running interpreter's standard library, sorted by id."""
    found: dict[str, Passage] = {}
    texts: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, kind, module, thing in _things():
            text = _text(thing)
            if len(text) < _SHORTEST or text in texts or name in found or _NOISE_NAME.match(name):
                continue
            texts.add(text)
            title = name if kind == "module" else _title(name, thing)
            found[name] = Passage(name, text, title, {"module": module, "kind": kind})
    return [found[name] for name in sorted(found)]


def load_needs() -> list[Need]:
    """Return the needs that ship with the package, in file order."""
    shipped = resources.files("rag_flywheel.bench").joinpath("stdlib_needs.jsonl")
    return parse_needs(shipped.read_text(encoding="utf-8").splitlines())


def parse_needs(lines: Iterable[str]) -> list[Need]:
    """Read one need a line; a malformed line is a ValueError that names its number."""
    needs: dict[str, Need] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            name, asked, answers = row["id"], row["phrasings"], row["answers"]
        except (json.JSONDecodeError, LookupError, TypeError):
            row = name = asked = answers = None
        for right, found, expected in (
            (row and len(row) == 3, line[:60], "a JSON object of id, phrasings and answers"),
            (isinstance(name, str) and name and name not in needs, name, "an id not used before"),
            (_differ(asked) and len(asked) == 3, asked, "three different phrasings, none empty"),
            (_differ(answers), answers, "one or more different passage ids"),
        ):
            if not right:
                raise ValueError(f"needs, line {number}: found {found!r}; expected {expected}")
        needs[name] = Need(name, (asked[0], asked[1], asked[2]), tuple(answers))
    return list(needs.values())


def missing_answers(needs: Iterable[Need], passages: Iterable[Passage]) -> dict[str, list[str]]:
    """Return, by need id, the answers which are not among the passages."""
    known = {passage.id for passage in passages}
    return {n.id: gone for n in needs if (gone := [a for a in n.answers if a not in known])}


def _differ(of: Any) -> bool:
    filled = {v for v in of if isinstance(v, str) and v.strip()} if isinstance(of, list) else ()
    return 0 < len(filled) == len(of)


def _things() -> Iterator[tuple[str, str, str, Any]]:
    """Yield (name, kind, module, object), each object once, under its most public name."""
    modules: dict[str, ModuleType] = {}
    for name in _MODULES.split():
        with contextlib.suppress(ImportError):  # not in this version, or left out of this build
            modules[name] = importlib.import_module(name)
    seen: dict[int, object] = {}  # keeps what it has seen alive, so that no id is given out twice
    owners: dict[type, tuple[str, str]] = {}
    for name, module in modules.items():
        yield name, "module", name, module
        for attribute, thing in _members(name, module, modules):
            if id(thing) not in seen:
                seen[id(thing)] = thing
                public = attribute if name == "builtins" else f"{name}.{attribute}"
                yield public, "class" if isinstance(thing, type) else "function", name, thing
                if public in _CLASSES.split():
                    owners[thing] = public, name
    for owner, (public, name) in owners.items():
        for attribute, thing in _methods(owner, owners):
            yield f"{public}.{attribute}", "method", name, thing


def _members(name: str, module: ModuleType, known: dict[str, ModuleType]) -> Iterator[_Named]:
    exported = getattr(module, "__all__", None)
    things = [(key, getattr(module, key, None)) for key in exported or list(vars(module))]
    # An object's own name comes before the other names which the module has for it.
    for key, thing in sorted(things, key=lambda t: (t[0] != getattr(t[1], "__name__", ""), t[0])):
        wrapped = callable(thing) and "__wrapped__" in getattr(thing, "__dict__", ())
        special = type(thing).__name__.endswith("SpecialForm")  # typing.Optional and its like
        documented = wrapped or special or isinstance(thing, type) or inspect.isroutine(thing)
        home = str(getattr(thing, "__module__", None) or name)
        own = name in (home, "builtins") or home.startswith(("_", "posix", "nt", f"{name}."))
        elsewhere = home in known and getattr(known[home], key, None) is thing
        grammar = name == "ast" and isinstance(thing, type) and "Node" not in key
        if documented and key[0] != "_" and (own or (exported and not elsewhere)) and not grammar:
            yield key, thing


def _methods(owner: type, listed: Container[type]) -> Iterator[_Named]:
    for attribute, thing in inspect.getmembers(owner):
        definer = next((base for base in owner.__mro__ if attribute in vars(base)), owner)
        home = str(getattr(thing, "__module__", None) or owner.__module__)
        native = home.startswith(owner.__module__.split(".")[0])  # not put in by another library
        documented = native and (inspect.isroutine(thing) or isinstance(thing, property))
        if documented and attribute[0] != "_" and (definer is owner or definer not in listed):
            yield attribute, thing


def _text(thing: Any) -> str:
    """Return the object's own docstring, nothing inherited, cut at the end of a paragraph."""
    doc = thing.__doc__ if not isinstance(thing, type) or "__doc__" in vars(thing) else None
    text = inspect.cleandoc(doc).strip() if isinstance(doc, str) else ""
    if isinstance(thing, type) and re.fullmatch(rf"{thing.__name__}\([^>]*\)", text):
        return ""  # made by dataclass or namedtuple: the signature again
    end = max(text.rfind("\n\n", 0, _LONGEST), 0) or text.rfind(" ", 0, _LONGEST)
    return text if len(text) <= _LONGEST else text[:end].rstrip()


def _title(name: str, thing: Any) -> str:
    try:
        signature = inspect.signature(thing)
    except (ValueError, TypeError, NameError, AttributeError):
        return name
    shown = []
    for p in signature.parameters.values():
        plain = p.default is p.empty or _PLAIN.fullmatch(repr(p.default))
        shown.append(p.replace(annotation=p.empty, default=p.default if plain else ...))
    bare = signature.replace(parameters=shown, return_annotation=signature.empty)
    title = name + str(bare).replace("Ellipsis", "...")
    return title if len(title) <= _TITLE else title[: _TITLE - 3] + "..."
