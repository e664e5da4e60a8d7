"""How indexes, tenants and the service's own file are named on command lines and in addresses."""

import json
from pathlib import Path


def named_folder(text: str) -> tuple[str, Path]:
    """The name and folder of an index from NAME=FOLDER, or from FOLDER, which its last part names."""
    name, equals, folder = text.strip().partition("=")
    if not equals:
        name, folder = Path(name).resolve().name, name
    return name, Path(folder)


def file_beside(folder: Path) -> Path:
    """The file of the service's own records: service.db beside the folder of the first index."""
    return folder.resolve().parent / "service.db"


def tenant_named(text: str | None) -> str | int | None:
    """The tenant that a text names: a whole number or a string in JSON, else the text itself."""
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, str | int) and not isinstance(found, bool) else text
