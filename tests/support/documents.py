"""Small documents of every format, with known words, and ways to damage them."""

import io
import json
import random
import zipfile
from collections.abc import Callable, Sequence

_DOCX = {
    "[Content_Types].xml": '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/'
    '2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.'
    'relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/word'
    '/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.'
    'main+xml"/></Types>',
    "_rels/.rels": '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/'
    '2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/'
    '2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>',
}
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def docx(heading: str, paragraphs: Sequence[str]) -> bytes:
    """A Word document of a heading and paragraphs."""
    body = f'<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>{heading}</w:t></w:r></w:p>'
    body += "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    document = (
        f'<?xml version="1.0"?><w:document xmlns:w="{_WORD}"><w:body>{body}</w:body></w:document>'
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, text in {**_DOCX, "word/document.xml": document}.items():
            file.writestr(name, text)
    return packed.getvalue()


def pdf(lines: Sequence[str]) -> bytes:
    """A PDF of one page of ASCII lines."""
    shown = " ".join(f"({line}) Tj T*" for line in lines)
    stream = f"BT /F1 12 Tf 14 TL 50 750 Td {shown} ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        "/Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("ascii")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    end += f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return out + end.encode("ascii")


def html(words: Sequence[str]) -> str:
    """A page with headings, lists, a table, code, links and a definition list."""
    a, b, c, d, e, f = _six(words)
    return (
        f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>{a}</title><style>p {{}}</style>"
        f"<script>var x = '<p>no';</script></head><body><nav>skip me</nav><h1>{a}</h1><p>{b} <b>{c}</b>"
        f"<h2 id=x>{d}<a class=headerlink href='#x'>¶</a></h2><ul><li>{e}<li>{f} &lt;{b}&gt; a &lt; {c}</ul>"
        f"<table><tr><th>{a}<th>{b}<tr><td>{c}<td>{d}</table><pre><code class=language-sh>{e} | {f}\n"
        f"</code></pre><dl><dt>{a}<dd>{b}</dl><details><summary>{c}</summary>{d}</details><blockquote>{e}"
        f"<p><a href='../a.html'>{f}</a> <a href='https://example.org/'>{a}</a> <img alt='{b}' src=x>"
    )


def rst(words: Sequence[str]) -> str:
    """A page with sections, roles and directives of docutils and of Sphinx."""
    a, b, c, d, e, f = _six(words)
    return (
        f"{a}\n{'=' * (4 * len(a))}\n\n{b} :func:`{c}` and :ref:`{d} <label>`, ``{e}``, *{f}*.\n\n"
        f".. note::\n\n   {a} {b}\n\n.. py:function:: call({c})\n\n   {d}\n\n   :param x: {e}\n\n"
        f".. versionadded:: 3.8\n   {f}\n\n{a} {b}\n{'-' * (8 * len(a) + 8 * len(b))}\n\n"
        f"::\n\n   {c} = {d}\n\n"
        f".. code-block:: python\n   :emphasize-lines: 1\n\n   {e}({f})\n\n* {a}\n* {b}\n\n"
        f"=====  =====\ncol    umn\n=====  =====\nrow    {c}\n=====  =====\n\n.. tab-item:: {d}\n\n   {e}\n\n"
        f"term {f}\n   {a}\n"
    )


def ipynb(words: Sequence[str]) -> str:
    """A notebook with text and code."""
    a, b, c, d, e, f = _six(words)
    cells = [
        {"cell_type": "markdown", "source": [f"# {a}\n", "\n", f"{b} `{c}`"]},
        {"cell_type": "code", "source": f"{d} = 1  # {e}", "outputs": [], "execution_count": None},
        {"cell_type": "raw", "source": [f]},
    ]
    metadata = {"language_info": {"name": "python"}}
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4}, ensure_ascii=False)


def csv(words: Sequence[str]) -> str:
    """A spreadsheet with quotes, and a separator and a line end in a cell."""
    a, b, c, d, e, f = _six(words)
    return f'id,name,"long, text"\r\n1,{a},"{b}, {c}"\r\n2,"{d}\n{e}",""\r\n\r\n3,,{f}\r\n'


def mdx(words: Sequence[str]) -> str:
    """A page with imports, components and code."""
    a, b, c, d, e, f = _six(words)
    return (
        f"---\ntitle: {a}\n---\nimport Tabs from '@theme/Tabs';\n\n# {a}\n\n<Tabs>\n  <Tab label=\"{b}\">\n"
        f"    {c}\n\n    ```js\n    {d}()\n    ```\n  </Tab>\n</Tabs>\n\n{{/* gone */}}\n{e} `<{f} />`\n"
    )


def markdown(words: Sequence[str]) -> str:
    """A page with sections, code and a list."""
    a, b, c, d, e, f = _six(words)
    return f"# {a}\n\n{b}\n\n## {c}\n\n- {d}\n- {e}\n\n```sh\n{f}\n```\n"


def jsonl(words: Sequence[str]) -> str:
    """Passages, one a line."""
    rows = [{"id": f"p{n}", "text": word, "metadata": {"n": n}} for n, word in enumerate(words)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


FORMATS: dict[str, Callable[[Sequence[str]], bytes]] = {
    ".html": lambda words: html(words).encode(),
    ".rst": lambda words: rst(words).encode(),
    ".ipynb": lambda words: ipynb(words).encode(),
    ".csv": lambda words: csv(words).encode(),
    ".mdx": lambda words: mdx(words).encode(),
    ".md": lambda words: markdown(words).encode(),
    ".txt": lambda words: "\n\n".join(words).encode(),
    ".jsonl": lambda words: jsonl(words).encode(),
    ".docx": lambda words: docx(words[0], words[1:]),
    ".pdf": lambda words: pdf([word.encode("ascii", "ignore").decode() for word in words]),
}
"""Documents of every format that hold all the words given."""


def damaged(data: bytes, seed: int) -> bytes:
    """The document with some bytes changed, lost, doubled, moved or replaced by odd ones."""
    draw = random.Random(seed)
    out = bytearray(data)
    odd = [
        b"\0", b"\xff", b"<", b">", b"`", b"{", b"]", b"\n", b"\r", b"..", b"::", b"<!--", b"<![x", b'"',
        b"\xe2\x80\xa8", b"\x0c", b"|", b"=====\n", b"    ", b"$$", b"---\n", b"&#0;", b"\\ud800",
        b"9" * 400,
    ]  # fmt: skip
    for _ in range(draw.randint(1, 6)):
        at, size = draw.randrange(len(out) + 1), draw.randint(1, 40)
        part = bytes(out[at : at + size])
        kind = draw.randrange(6)
        if kind == 0:
            del out[at : at + size]
        elif kind == 1:
            out[at:at] = part * draw.randint(1, 50)
        elif kind == 2:
            out[at:at] = draw.choice(odd) * draw.choice([1, 1, 1, 3, 200])
        elif kind == 3 and at < len(out):
            out[at] = draw.randrange(256)
        elif kind == 4:
            del out[at:]
        else:
            to = draw.randrange(len(out) + 1)
            out[to:to] = part
    return bytes(out)


def _six(words: Sequence[str]) -> Sequence[str]:
    assert len(words) == 6
    return words
