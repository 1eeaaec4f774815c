"""What a backup says of itself in the clear, and whether it is one that can be used here."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from cromford import __version__
from cromford.adapters.sealed import FILE_ID_SIZE, BadFile, SealedHeader, SealedWriter, read_header
from cromford.adapters.store_copy import SCHEMA_VERSION
from cromford.bitcoin.network import Network

FORMAT: Final = 1
BACKUP: Final = "backup"
SEGMENT: Final = "segment"


class ForeignBackup(BadFile):
    """It belongs to another seed."""

    code = "backup_of_another_seed"


class WrongRole(BadFile):
    """It is of another role."""

    code = "backup_of_another_role"


class WrongNetwork(BadFile):
    """It is of another network."""

    code = "backup_of_another_network"


class WrongVersion(BadFile):
    """Its format is another."""

    code = "backup_of_another_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose backups these are. `secret` encrypts them; all else is in the clear."""

    role: str
    network: Network
    fingerprint: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"Owner({self.role}, {self.network.name}, {self.fingerprint.hex()})"


class Says(msgspec.Struct, frozen=True, kw_only=True):
    """The header of a file. `base` and `index` are of a segment: of what, and which."""

    format: int
    kind: str
    role: str
    network: str
    seed: str
    journal_number: int
    schema: int
    created: int  # seconds since 1970, UTC
    version: str = ""
    base: str = ""
    index: int = 0


def begin_file(
    path: Path,
    owner: Owner,
    *,
    kind: str,
    journal_number: int,
    unix_time: int,
    base: bytes = b"",
    index: int = 0,
) -> tuple[SealedWriter, bytes]:
    """Begin a file of an owner's; return what writes it, and its random name.

    Raises:
        OSError: If it cannot be made.
    """
    file_id = secrets.token_bytes(FILE_ID_SIZE)
    says = Says(
        format=FORMAT,
        kind=kind,
        role=owner.role,
        network=owner.network.name,
        seed=owner.fingerprint.hex(),
        journal_number=journal_number,
        schema=SCHEMA_VERSION,
        created=unix_time,
        version=__version__,
        base=base.hex(),
        index=index,
    )
    plain: dict[str, Any] = msgspec.to_builtins(says)
    return SealedWriter(path, owner.secret, file_id, plain), file_id


def checked_header(path: Path, owner: Owner, *, kind: str = BACKUP) -> tuple[SealedHeader, Says]:
    """Return what a file says of itself, if it is one of the owner's that this version reads.

    Raises:
        BadFile: If it is not: named by what is wrong.
        OSError: If it cannot be read.
    """
    header = read_header(path)
    version = header.says.get("format")
    if version != FORMAT:
        raise WrongVersion(f"{path}: format version: expected {FORMAT}, received {version}")
    try:
        says = msgspec.convert(header.says, Says)
    except msgspec.ValidationError as error:
        raise BadFile(f"{path} is damaged: its header: {error}") from error
    if says.schema != SCHEMA_VERSION:
        raise WrongVersion(
            f"{path} was made by version {says.version or 'unknown'}: schema version: expected "
            f"{SCHEMA_VERSION}, received {says.schema}"
        )
    if says.kind != kind:
        raise BadFile(f"{path}: expected a {kind}, received a {says.kind}")
    if says.role != owner.role:
        raise WrongRole(
            f"{path} is a backup of role {says.role}: expected one of role {owner.role}"
        )
    if says.network != owner.network.name:
        raise WrongNetwork(
            f"{path} is a backup of network {says.network}: expected {owner.network.name}"
        )
    if says.seed != owner.fingerprint.hex():
        raise ForeignBackup(
            f"{path} belongs to the seed {says.seed}: expected {owner.fingerprint.hex()}, the seed "
            "of this directory"
        )
    return header, says
