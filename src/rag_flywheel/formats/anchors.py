"""Makes the anchors of headings: the slug an id is made of, and the fragment that a site links to."""

import unicodedata
from typing import Literal, TypeAlias
from urllib.parse import quote

import regex

Site: TypeAlias = Literal["github", "mkdocs", "vitepress"]
"""Whose anchors and page addresses links follow; Docusaurus makes the anchors of GitHub."""
SITES: tuple[Site, ...] = ("github", "mkdocs", "vitepress")

_GITHUB_DROPS = regex.compile(r"[^\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\- ]")
_VITEPRESS_BREAKS = regex.compile(r"[\s~`!@#$%^&*()\-_+=\[\]{}|\\;:\"'“”‘’<>,.?/]+")


def slug(heading: str) -> str:
    """GitHub's slug of a heading's text, empty for a heading without letters and digits."""
    return str(_GITHUB_DROPS.sub("", heading.strip().lower()).replace(" ", "-"))


class Anchors:
    """Gives the headings of one page their anchors, in order, as the software of a site does."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._used: dict[str, int] = {}

    def add(self, heading: str, explicit: str | None) -> str:
        """The anchor of the next heading; explicit: the one its source asks for."""
        if self._site == "mkdocs":
            return self._underscored(explicit or _mkdocs(heading))
        return self._numbered(
            explicit or (_vitepress if self._site == "vitepress" else slug)(heading)
        )

    def _numbered(self, wanted: str) -> str:
        """wanted, wanted-1, wanted-2: after github-slugger."""
        found = wanted
        while found in self._used:
            self._used[wanted] += 1
            found = f"{wanted}-{self._used[wanted]}"
        self._used[found] = 0
        return found

    def _underscored(self, wanted: str) -> str:
        """wanted, wanted_1, wanted_2: after markdown.extensions.toc.unique."""
        stem, _, number = wanted.rpartition("_")
        if not (number.isdecimal() and number.isascii()):
            stem, number = wanted, "0"
        found, n = wanted, max(int(number[:9]), self._used.get(stem, 0))
        while found in self._used or not found:
            n += 1
            found = f"{stem}_{n}"
            self._used[stem] = n
        self._used.setdefault(found, 0)
        return found


def _mkdocs(heading: str) -> str:
    """After markdown.extensions.toc.slugify."""
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode("ascii")
    kept = regex.sub(r"[^\w\s-]", "", plain).strip().lower()
    return str(regex.sub(r"[-\s]+", "-", kept))


def _vitepress(heading: str) -> str:
    """After slugify of @mdit-vue/shared."""
    plain = regex.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFKD", heading))
    dashed = _VITEPRESS_BREAKS.sub("-", regex.sub(r"[\u0000-\u001f]", "", plain)).strip("-")
    return str(regex.sub(r"^(\d)", r"_\1", dashed).lower())


def page_url(base_url: str, source: str, site: Site) -> str:
    """The address of a page below `base_url`; GitHub shows the file itself, sites a page made of it."""
    path = source
    if site != "github":
        stem = regex.sub(r"\.(?:md|mdx|markdown)$", "", source)
        folder, _, name = stem.rpartition("/")
        if name in {"index", "README"}:
            path = f"{folder}/" if folder else ""
        else:
            path = f"{stem}/" if site == "mkdocs" else f"{stem}.html"
    return f"{base_url.rstrip('/')}/{quote(path)}"
