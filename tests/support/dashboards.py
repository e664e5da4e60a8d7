"""An index with something on every screen of the dashboard, and what tests read from its pages."""

import re
from pathlib import Path

from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.store.place import is_linked

SCREENS = (
    "/", "/overview", "/questions", "/questions?order=worst", "/questions?order=disputed", "/gaps",
    "/review", "/versions", "/passages", "/passages?q=parcels", "/voters", "/coverage", "/health",
)  # fmt: skip
QUERY = "when are parcels sent"
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": "\" onmouseover='alert(1)' x=\"",
    "template": "{{ 7 * 7 }} {% raw %}",
    "right to left": "‮abc⁦ \u200f",
    "nul": "a\x00b\x1b[31m",
    "entity": "&lt;b&gt; &amp;quot;",
}


def make(folder: Path, *, config: Config | None = None, hostile: bool = False) -> None:
    """Make the index: two versions, votes of which some disagree, a written answer and a missing one."""
    config = config or Config(encoder="fakes:word_encoder")
    metadata = {} if config.tenant_key is None else {config.tenant_key: "one"}
    named = {} if config.tenant_key is None else {"tenant": "one"}
    with Flywheel.open(folder, config=config) as fw:
        texts = {
            "send": "parcels are sent on Monday and Thursday",
            "track": "to follow parcels open the list of orders and press follow",
            "pay": "invoices are paid by card or by transfer",
            "back": "parcels are sent back within thirty days when they are whole",
        } | {f"other{n}": f"parcels of kind{n} have their own page number{n}" for n in range(30)}
        fw.add([Passage(id_, text, f"About {id_}", metadata) for id_, text in texts.items()])
        fw.refresh()
        for user, verdict in (("ann", "helpful"), ("bob", "harmful"), ("cid", "helpful")):
            shown = fw.retrieve(QUERY, user_id=user, **named)  # type: ignore[arg-type]
            fw.feedback(shown.id, "send", verdict, user_id=user, **named)  # type: ignore[arg-type]
            fw.feedback(shown.id, shown.hits[3].passage_id, "harmful", user_id=user, **named)  # type: ignore[arg-type]
        fw.correct(shown.id, text="They leave on Mondays.", user_id="dan", **named)  # type: ignore[arg-type]
        fw.missing(shown.id, "it does not say the hour", user_id="eve", **named)  # type: ignore[arg-type]
        fw.golden.add_answers([("paying an invoice", "pay", 1)], **named)  # type: ignore[arg-type]
        if hostile:
            _add_hostile(fw)
        fw.add([Passage("late", "late parcels are looked for by the desk", "", metadata)])
        fw.refresh()


def _add_hostile(fw: Flywheel) -> None:
    for name, text in HOSTILE.items():
        if is_linked(fw._root):  # no text on a server has NUL
            text = text.replace("\x00", "")
        id_ = f"{name} {text}".replace("\x00", "")
        safe = text.replace("\x00", "")
        fw.add([Passage(id_, f"hostile parcels {safe}", safe, {"tag": safe})])
        shown = fw.retrieve(f"hostile parcels {text}", user_id=f"evil {text}")
        fw.feedback(
            shown.id, shown.hits[0].passage_id, "harmful", user_id=f"evil {text}", reason=text
        )
        fw.correct(shown.id, text=f"hostile {text}", user_id="evil")
        fw.missing(shown.id, text, user_id="evil")
    word = "w" * 100_000
    fw.add([Passage("long", f"hostile {word}", word[:5000])])
    fw.correct(fw.retrieve("hostile word", user_id="evil").id, text="x" * 20_000, user_id="evil")


def form_token(text: str) -> str:
    """The token of the forms on a page."""
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', text)
    assert found is not None
    return found.group(1)
