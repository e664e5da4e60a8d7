"""Every error this package raises on purpose, as one tree with one root.

Messages say what was found, what was expected and what to do; this module knows nothing else.

    FlywheelError
    ├── InputError          (ValueError)    an argument cannot be used as it is
    ├── UnknownIdError      (LookupError)   no such passage, retrieval or version
    ├── ConfigError         (ValueError)    flywheel.toml, or a Config, cannot be used
    ├── EncoderError        (RuntimeError)  the encoder answered with something unusable
    │   ├── EncoderNotFoundError            no model can be loaded
    │   └── EncoderMismatchError            another encoder than the one the index was made with
    ├── EngineError         (RuntimeError)  the database of vectors that passages are found in
    ├── StorageError        (OSError)       the folder or the disk under it
    │   ├── NotAFlywheelError               the folder holds something else
    │   ├── NewerFormatError                written by a newer release
    │   ├── CorruptFileError                a file is not what its manifest says
    │   │   └── OlderFormatError            a version was written by an earlier release
    │   ├── BusyError                       another program holds the write lock
    │   │   └── UnreachableError            the server of the database cannot be reached
    │   ├── ObjectStoreError                the object store that versions are in
    │   │   ├── MissingObjectError          it lacks an object that a manifest names
    │   │   ├── DamagedObjectError          an object is not what its manifest says
    │   │   └── ObjectConflictError         another writer was first
    │   ├── ReadOnlyError                   no permission to write
    │   └── DiskFullError                   no space left
    ├── LockedError         (RuntimeError)  another process holds the refresh lock
    ├── ClosedError         (RuntimeError)  the Flywheel, or the client of a service, was closed
    ├── AccessError         (PermissionError) the service does not know the key, or it may not do this
    └── ServiceError        (ConnectionError) the service cannot be reached, or its answer not be used
        └── RateLimitedError                too many calls; retry_after_s says when to go on
"""

import reprlib

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 200
_short.maxlevel = 3


def quoted(value: object) -> str:
    """A value as Python writes it, for messages: what is long or deep only in part."""
    return _short.repr(value)


def counted(n: int, noun: str, plural: str = "") -> str:
    """A number and what it counts, for messages; plural: where it is not the noun with an s."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


class FlywheelError(Exception):
    """The root: catch this to catch everything this package raises on purpose."""


class InputError(FlywheelError, ValueError):
    """An argument cannot be used as it is."""


class UnknownIdError(FlywheelError, LookupError):
    """No passage, retrieval or version has this id."""


class ConfigError(FlywheelError, ValueError):
    """A configuration value or key cannot be used."""


class EncoderError(FlywheelError, RuntimeError):
    """The encoder failed, or answered with vectors that cannot be used."""


class EncoderNotFoundError(EncoderError):
    """No model could be found for the encoder asked for."""


class EncoderMismatchError(EncoderError):
    """The encoder is not the one that the index was made with."""


class EngineError(FlywheelError, RuntimeError):
    """The database of vectors that passages are found in cannot be reached, or lacks what it should hold."""


class StorageError(FlywheelError, OSError):
    """The index folder, or the disk under it, cannot be used."""


class NotAFlywheelError(StorageError):
    """The folder holds something that is not an index of this package."""


class NewerFormatError(StorageError):
    """The folder was written by a newer release than this one."""


class CorruptFileError(StorageError):
    """A file is missing, truncated or altered."""


class OlderFormatError(CorruptFileError):
    """A version was written by an earlier release; a refresh builds it anew."""


class BusyError(StorageError):
    """Another program has held the database's write lock for as long as was waited for it."""


class UnreachableError(BusyError):
    """The server that the database is on cannot be reached; the call can be repeated."""


class ObjectStoreError(StorageError):
    """The object store that versions are in cannot be reached, refuses, or answers with nothing usable."""


class MissingObjectError(ObjectStoreError):
    """The object store lacks an object that a manifest names; a newer version may be whole."""


class DamagedObjectError(ObjectStoreError):
    """An object of the object store is not what the manifest of its version says."""


class ObjectConflictError(ObjectStoreError):
    """Another writer changed an object of the object store first."""


class NotRecordedWarning(RuntimeWarning):
    """An answer was given without being recorded, so it takes no votes."""


class ReadOnlyError(StorageError):
    """The folder cannot be written to."""


class DiskFullError(StorageError):
    """There is no space left where the folder is."""


class LockedError(FlywheelError, RuntimeError):
    """Another process is refreshing, or moving versions of, this index."""


class ClosedError(FlywheelError, RuntimeError):
    """The object was used after close()."""


class AccessError(FlywheelError, PermissionError):
    """The service does not know the key of a client, or the key may not do what was asked for."""


class ServiceError(FlywheelError, ConnectionError):
    """The service cannot be reached, or what it answered cannot be used."""


class RateLimitedError(ServiceError):
    """The service has had too many calls.

    retry_after_s: in how many seconds it takes more; None: it does not say.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
