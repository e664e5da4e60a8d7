"""Opens an index folder: creates it on first use, and refuses a folder that is something else."""

from pathlib import Path

from rag_flywheel import config as settings
from rag_flywheel import disk
from rag_flywheel.config import Config
from rag_flywheel.deploy.versions import CURRENT, FOLDERS, VERSIONS
from rag_flywheel.disk import disk_errors, replace_text
from rag_flywheel.errors import ConfigError, CorruptFileError, NotAFlywheelError
from rag_flywheel.store.database import FILE_NAME as DATABASE
from rag_flywheel.store.place import LINK, is_linked


def is_new(root: Path) -> bool:
    """Whether there is no index at `root` yet."""
    return not (root / settings.FILE_NAME).exists()


def open_folder(root: Path, *, config: Config | None, new: Config, create: bool) -> Config:
    """The settings of the index folder at `root`, which is made when it is missing or empty.

    config: the settings that a new or an existing folder must have; new: the settings of a new
    folder when config is None.
    Raises NotAFlywheelError, NewerFormatError, ConfigError, ReadOnlyError,
    StorageError where a folder or the database in it is a link.
    """
    marker = root / settings.FILE_NAME
    with disk_errors(root):
        disk.require_no_links(root, (*FOLDERS, DATABASE, LINK))
        if marker.exists():
            found = settings.read_config(marker)
            if config is not None and config != found:
                raise ConfigError(
                    f"{marker} differs from the config given here: {found} against {config}. "
                    "Edit the file, or open without config="
                )
            _require_database(root)
            return found
        _refuse_other(root, create)
        disk.make_folders(root, 0o700)
        created = config if config is not None else new
        replace_text(marker, settings.config_text(created))  # the last file that a new folder needs
        return created


def require_index(root: Path) -> None:
    """Raises NotAFlywheelError for a folder that holds no index."""
    if not (root / settings.FILE_NAME).exists():
        _refuse_other(root, create=False)


def _refuse_other(root: Path, create: bool) -> None:
    if root.exists() and not root.is_dir():
        raise NotAFlywheelError(f"{root} is a file; expected an index folder")
    names = [p.name for p in root.iterdir()] if root.exists() else []
    foreign = [n for n in names if not n.startswith((f".{settings.FILE_NAME}.", DATABASE))]
    if foreign and not (root / settings.FILE_NAME).exists():  # else made by another meanwhile
        raise NotAFlywheelError(
            f"{root} is no index folder: it has no {settings.FILE_NAME} but holds "
            f"{sorted(foreign)[0]!r}. Give an index folder, or an empty or new one"
        )
    if not create:
        raise NotAFlywheelError(
            f"{root} holds no index; make one by adding passages: rag-flywheel add FILES "
            f"--index {root}"
        )


def _require_database(root: Path) -> None:
    """A folder that had versions has a database: an empty one must not silently take its place."""
    if is_linked(root):
        return
    path = root / DATABASE
    used = (root / CURRENT).exists() or bool(disk.names_in(root, VERSIONS))
    if used and not (path.is_file() and path.stat().st_size):
        raise CorruptFileError(
            f"{path} is missing or empty, but {root} has index versions; expected the database "
            "with the passages and votes they were built from: restore it from a backup"
        )
