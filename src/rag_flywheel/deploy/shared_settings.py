"""The settings that hosts with folders of their own share: the database has them, each folder a copy in its
file.

A file that was edited on one host differs from what its host and the database last agreed on, which the
folder keeps beside it. A refresh of that host makes the edited settings those of the index; others take them
over. Where both were changed, a person has to decide.
"""

import dataclasses
import logging
from pathlib import Path

from rag_flywheel import config as settings
from rag_flywheel import disk
from rag_flywheel.config import Config, config_of, config_text, read_config
from rag_flywheel.deploy.lock import require_lock
from rag_flywheel.disk import read_bytes, replace_text
from rag_flywheel.errors import ConfigError, FlywheelError
from rag_flywheel.store import journal
from rag_flywheel.store.database import Database
from rag_flywheel.store.journal import SETTINGS
from rag_flywheel.store.postgres import PostgresDatabase

log = logging.getLogger("rag_flywheel")
OWN = ("encoder", "n_lookups", "record_wait_s")
"""The settings that each host may have otherwise: where its model is, and what suits its memory and network.
Which encoder the index has, the database knows."""
AGREED = "AGREED"
_MOST_BYTES = 100_000


def text_of(config: Config) -> str:
    """What is stored of settings that hosts share; the encoder is in it for those that join."""
    own = {name: getattr(Config(), name) for name in OWN if name != "encoder"}
    return config_text(dataclasses.replace(config, **own))


def differing(one: Config, other: Config) -> list[str]:
    """The names of the shared settings in which two differ."""
    names = [field.name for field in dataclasses.fields(Config) if field.name not in OWN]
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def joined(text: str, given: Config | None, encoder: str) -> Config:
    """The settings of a new folder, by those of the index that it joins.

    given: what the caller expects, None: anything; encoder: the spec that the caller names, "": none. Raises
    ConfigError where they differ.
    """
    theirs = config_of(text, "the settings of the index in its database")
    if given is not None:
        if names := differing(given, theirs):
            raise ConfigError(
                f"{_said(names[0], given)} in the config given here, and {_said(names[0], theirs)} in the "
                "index, which hosts share; open it without config=, or with these settings"
            )
        return given
    return dataclasses.replace(theirs, encoder=encoder) if encoder else theirs


def adopt(root: Path, database: Database) -> None:
    """Take over what another host made the settings of the index, unless the file here was edited as well."""
    text = _stored(database)
    agreed = _agreed(root)
    if text is None or text == agreed:
        return
    path = root / settings.FILE_NAME
    try:
        theirs, own = config_of(text, "the settings of the index"), read_config(path)
        before = own if agreed is None else config_of(agreed, AGREED)
        names = differing(own, theirs)
        if differing(own, before) and names:
            log.warning(
                "%s was edited, while another host made %s that of the index; it stays as it is",
                path,
                _said(names[0], theirs),
            )
            return
        if names and path.is_symlink():
            log.warning(
                "%s is a link, and only read; another host made %s the setting of the index",
                path,
                _said(names[0], theirs),
            )
            return
        if names:
            kept = {name: getattr(own, name) for name in OWN}
            replace_text(path, config_text(dataclasses.replace(theirs, **kept)))
            log.warning(
                "another host changed the settings of the index: %s; %s has them now, and a process goes by "
                "them once it opens the index again",
                ", ".join(_said(name, theirs) for name in names),
                path,
            )
        replace_text(root / AGREED, text)
    except (FlywheelError, OSError) as error:
        log.warning("the settings of the index cannot be put into %s: %s", path, error)


def checked(root: Path, database: Database, found: Config) -> Config:
    """The settings of a folder, in which `found` was read, beside those that hosts share; warns where the
    file was edited.

    Raises ConfigError where both were changed since they were the same.
    """
    text = _stored(database)
    if text is None:
        return found
    own = read_config(root / settings.FILE_NAME)
    theirs = config_of(text, "the settings of the index in its database")
    names = differing(own, theirs)
    if not names:
        return own
    here, there = _said(names[0], own), _said(names[0], theirs)
    if text != _agreed(root):
        raise ConfigError(
            f"{root / settings.FILE_NAME} says {here}, and another host made {there} the setting of the "
            f"index meanwhile; write that into the file ({', '.join(names)}), open the index, and change it "
            "then"
        )
    log.warning(
        "%s says %s, while the index has %s: this host alone goes by it until it refreshes the index, which "
        "makes it the setting of all",
        root / settings.FILE_NAME,
        here,
        there,
    )
    return own


def settle(root: Path, database: Database, config: Config) -> None:
    """Make the settings that this folder's file was given those of the index, at a refresh. Call only while
    holding the refresh lock, once the folder is up to date.

    config: what the refresh goes by. Raises ConfigError where the index has got others since it was opened,
    LockedError.
    """
    text = _stored(database)
    if text is None:
        return
    theirs = config_of(text, "the settings of the index in its database")
    if not (names := differing(config, theirs)):
        return
    if text != _agreed(root) or differing(config, read_config(root / settings.FILE_NAME)):
        raise ConfigError(
            f"the index was opened with {_said(names[0], config)}, and another host has made it "
            f"{_said(names[0], theirs)} since; open it again, then refresh"
        )
    with database.transaction() as conn:
        require_lock(root, database, conn)
        journal.write_meta(conn, SETTINGS, text_of(config))
    agree(root, config)


def agree(root: Path, config: Config) -> None:
    """Keep beside the file what it and the database have agreed on."""
    disk.write_file(root, AGREED, text_of(config).encode())


def _stored(database: Database) -> str | None:
    if not isinstance(database, PostgresDatabase):
        return None
    with database.reading() as conn:
        return journal.read_meta(conn, SETTINGS) if journal.is_shared(conn) else None


def _agreed(root: Path) -> str | None:
    try:
        return read_bytes(root / AGREED, most=_MOST_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def _said(name: str, config: Config) -> str:
    return f"{name} = {getattr(config, name)!r}"
