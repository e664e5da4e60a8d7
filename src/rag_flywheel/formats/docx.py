"""Converts Word documents (.docx) to HTML: headings, lists, tables, notes; no pictures."""

import io
import zipfile

from rag_flywheel.errors import InputError

_MOST_UNPACKED = 256 * 2**20


def docx_to_html(data: bytes) -> str:
    """HTML of a Word document; of tracked changes, the new text. Raises InputError."""
    import mammoth

    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        if sum(entry.file_size for entry in packed.infolist()) > _MOST_UNPACKED:
            raise InputError(f"it unpacks to more than {_MOST_UNPACKED} bytes")
    no_pictures = mammoth.images.img_element(lambda _: {"src": ""})
    return str(mammoth.convert_to_html(io.BytesIO(data), convert_image=no_pictures).value)
