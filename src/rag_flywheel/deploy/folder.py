"""The index folder itself: made on first use, refused when it is something else.

It must not know what is in the database or in a version.
"""

from pathlib import Path

from rag_flywheel import config as settings
from rag_flywheel.config import Config
from rag_flywheel.deploy.files import disk_errors, replace_text
from rag_flywheel.errors import ConfigError, NotAFlywheelError
from rag_flywheel.store.database import FILE_NAME as DATABASE


def open_folder(root: Path, *, config: Config | None, create: bool) -> Config:
    """The settings of the index folder at `root`, which is made when it is missing or empty.

    config: the settings of a new folder; for an existing one they must equal its own.
    Raises NotAFlywheelError, NewerFormatError, ConfigError, ReadOnlyError.
    """
    marker = root / settings.FILE_NAME
    with disk_errors(root):
        if marker.exists():
            found = settings.read_config(marker)
            if config is not None and config != found:
                raise ConfigError(
                    f"{marker} differs from the config given here: {found} against {config}. "
                    "Edit the file, or open without config="
                )
            return found
        _refuse_other(root, create)
        root.mkdir(parents=True, exist_ok=True)
        made = config if config is not None else Config()
        replace_text(
            marker, settings.config_text(made)
        )  # last of a new folder's files to be needed
        return made


def _refuse_other(root: Path, create: bool) -> None:
    if root.exists() and not root.is_dir():
        raise NotAFlywheelError(f"{root} is a file; expected an index folder")
    names = [p.name for p in root.iterdir()] if root.exists() else []
    foreign = [n for n in names if not n.startswith((f".{settings.FILE_NAME}.", DATABASE))]
    if foreign:
        raise NotAFlywheelError(
            f"{root} is no index folder: it has no {settings.FILE_NAME} but holds "
            f"{sorted(foreign)[0]!r}. Give an index folder, or an empty or new one"
        )
    if not create:
        raise NotAFlywheelError(
            f"{root} holds no index; make one by adding passages: rag-flywheel add FILES "
            f"--index {root}"
        )
