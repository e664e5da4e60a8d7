"""Converts reStructuredText to HTML with docutils; what Sphinx adds to it is read as well.

No file is included, nothing is run, and no setting of the machine is read.
"""

import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

_DROPPED = {
    "toctree", "index", "tabularcolumns", "highlight", "currentmodule", "sectionauthor",
    "codeauthor", "moduleauthor", "default-domain", "default-role", "include", "literalinclude", "raw",
    "meta", "py:currentmodule", "c:namespace", "cpp:namespace",
}  # fmt: skip
"""Directives that say nothing a reader sees here: lists of pages, index entries, other files."""
_CODE = {
    "code", "code-block", "sourcecode", "prompt", "testcode", "testoutput", "testsetup", "doctest",
    "productionlist", "graphviz", "digraph", "mermaid", "plantuml", "uml", "console", "ipython",
}  # fmt: skip
_CONDITIONS = {"only", "ifconfig", "tab-set", "tabs", "grid", "hlist", "glossary", "centered"}
"""Directives whose argument is no text."""
_VERSIONS = {
    "versionadded": "Added in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
    "versionremoved": "Removed in version",
    "deprecated-removed": "Deprecated since version",
}
_OBJECTS = {
    "module", "function", "class", "method", "attribute", "data", "exception", "option", "envvar", "confval",
    "program", "describe", "object", "cmdoption", "staticmethod", "classmethod", "property",
    "decorator", "opcode", "macro", "type", "var", "autoclass", "autofunction", "automodule",
    "automethod", "autoattribute", "autodata", "autoexception", "coroutinefunction",
}  # fmt: skip
_SHOWN = ("synopsis", "type", "value", "default")
"""Options of a described object that its readers see."""
_TEXT_ROLES = {"ref", "doc", "term", "abbr", "numref", "guilabel", "menuselection", "pep", "rfc"}
_NAME = r"(?:(?!_)\w)+(?:[-._+:](?:(?!_)\w)+)*"
_DIRECTIVE = re.compile(rf"^[ \t]*\.\.[ \t]+(?:\|[^|\n]+\|[ \t]+)?({_NAME})[ \t]?::", re.MULTILINE)
_ROLE = re.compile(rf":({_NAME}):`|`:({_NAME}):")
_SETTINGS = {
    "_disable_config": True,
    "doctitle_xform": False,
    "file_insertion_enabled": False,
    "halt_level": 6,
    "initial_header_level": 1,
    "input_encoding": "unicode",
    "line_length_limit": 2**31,
    "math_output": "LaTeX",
    "output_encoding": "unicode",
    "raw_enabled": False,
    "report_level": 5,
    "smart_quotes": False,
    "strip_comments": True,
    "syntax_highlight": "none",
    "toc_backlinks": False,
    "embed_stylesheet": False,
    "stylesheet_path": "",
    "warning_stream": False,
}
_LOCK = threading.Lock()  # docutils keeps its directives and roles in module variables


def rst_to_html(text: str) -> str:
    """HTML of a reStructuredText page. What docutils cannot read stays as it is written.

    Sphinx's directives are read by what they hold: descriptions of objects, notes, tabs, versions.
    Lists of pages (toctree), index entries, comments and the contents of other files are left out.
    """
    from docutils import nodes
    from docutils.core import publish_doctree, publish_from_doctree

    with _LOCK, _sphinx(text):
        document = publish_doctree(text, settings_overrides=_SETTINGS)
        for message in list(document.findall(nodes.system_message)):
            written = [n for n in message.children if isinstance(n, nodes.literal_block)]
            message.parent[(at := message.parent.index(message)) : at + 1] = written
        document.parse_messages.clear()
        document.transform_messages.clear()
        return str(publish_from_doctree(document, writer="html5", settings_overrides=_SETTINGS))


@contextmanager
def _sphinx(text: str) -> Iterator[None]:
    """Within the block, docutils knows every directive and role that the text names."""
    from docutils.parsers.rst import directives, roles
    from docutils.parsers.rst.languages import en

    before = dict(directives._directives), dict(roles._roles)
    directive, role = _directive_class(), _role
    try:
        for name in {found[1].lower() for found in _DIRECTIVE.finditer(text)}:
            if name in _DROPPED | _CODE or name not in {**en.directives, **before[0]}:
                directives.register_directive(name, directive)
        for found in _ROLE.finditer(text):
            name = (found[1] or found[2]).lower()
            if name not in {**en.roles, **before[1]}:
                roles.register_local_role(name, role)
        yield
    finally:
        for registry, names in ((directives._directives, before[0]), (roles._roles, before[1])):
            registry.clear()
            registry.update(names)


def _directive_class() -> Any:
    from docutils import nodes
    from docutils.parsers.rst import Directive, directives

    class AnyDirective(Directive):  # type: ignore[misc]
        """A directive of which only its argument and content are known."""

        has_content = True
        optional_arguments = 1
        final_argument_whitespace = True
        option_spec: ClassVar[Any] = defaultdict(
            lambda: directives.unchanged, name=directives.unchanged
        )

        def run(self) -> Any:
            """The nodes that stand for it."""
            name = self.name.lower()
            if name in _DROPPED:
                return []
            argument = " ".join(self.arguments).strip()
            if name in _CODE:
                return self._code(argument)
            if name.split(":")[-1] in _OBJECTS or ":" in name:
                return self._described(argument)
            content = self._content()
            if name in _CONDITIONS or not argument:
                return content
            if name in _VERSIONS:
                version, *rest = argument.split(None, 1)
                said = f"{_VERSIONS[name]} {version}" + "".join(f": {text}" for text in rest)
                return [*self._paragraph(said), *content]
            return [*self._paragraph(argument), *content]

        def _code(self, language: str) -> Any:
            caption = self.options.get("caption") or ""
            code = "\n".join(self.content)
            classes = ["code", *language.split()[:1]]
            block = nodes.literal_block(code, code, classes=classes)
            return [*self._paragraph(caption), *([block] if code.strip() else [])]

        def _described(self, signatures: str) -> Any:
            terms = "\n".join(self.arguments).split("\n")
            found = nodes.paragraph()
            for term in filter(str.strip, terms):
                found += [nodes.literal(term, term.strip()), nodes.Text(" ")]
            about = [f"{o.title()}: {self.options[o]}" for o in _SHOWN if self.options.get(o)]
            paragraphs = [node for line in about for node in self._paragraph(line)]
            return [*([found] if signatures else []), *paragraphs, *self._content()]

        def _paragraph(self, text: str) -> Any:
            if not text.strip():
                return []
            inline, messages = self.state.inline_text(text, self.lineno)
            return [nodes.paragraph(text, "", *inline), *messages]

        def _content(self) -> Any:
            node = nodes.container()
            self.state.nested_parse(self.content, self.content_offset, node, match_titles=True)
            return node.children

    return AnyDirective


def _role(name: str, rawtext: str, text: str, *_: Any, **__: Any) -> Any:
    """A role's title, or its target without the marks of Sphinx; code for the name of an object."""
    from docutils import nodes, utils

    plain = utils.unescape(text)
    titled = re.fullmatch(r"(.*?)\s*(?<!\x00)<([^<>]*)>", plain, re.DOTALL)
    shown = titled[1] if titled and titled[1].strip() else plain.lstrip("~!")
    if titled or name.split(":")[-1] in _TEXT_ROLES:
        return [nodes.inline(rawtext, shown)], []
    return [nodes.literal(rawtext, shown)], []
