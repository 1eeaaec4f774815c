"""`backup`: copies of the store that can be put back, and what may be trusted of one that was."""

from pathlib import Path
from typing import Any

import click

from cromford.cli.asking import confirm
from cromford.cli.configuration.settings import flag_of
from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.named import NamedPath
from cromford.cli.shown import backup_lists
from cromford.cli.shown.output import show

_passphrase_option = click.option(
    "--passphrase-file",
    metavar="FILE",
    type=NamedPath(dir_okay=False, path_type=Path),
    help="A file with the passphrase of the seed file on its first line.  "
    "[default: the configuration's, or asked for]",
)
_backup_argument = click.argument("backup", metavar="BACKUP", type=NamedPath(path_type=Path))


def backup_group(role: str) -> click.Group:
    """Return the group `backup` of a role."""
    group = click.Group(name="backup", help="Copies of the store, and what they are worth.")
    for command in (
        _create(role),
        _verify(role),
        _restore(role),
        _status(role),
        _begin_mark(role),
    ):
        group.add_command(command)
    return group


def _create(role: str) -> click.Command:
    @click.command()
    @click.argument("file", metavar="FILE", type=NamedPath(path_type=Path))
    @click.option("--overwrite", is_flag=True, help="Replace a backup that is there.")
    @_passphrase_option
    @invocation_options
    @click.pass_obj
    def create(
        invocation: Invocation,
        /,
        *,
        file: Path,
        overwrite: bool,
        passphrase_file: Path | None,
    ) -> None:
        """Write the whole store, as it is at this moment, to one file.

        The daemon may run: then it writes the file itself, and no passphrase is read. It is
        encrypted under a key that comes from the seed, and the seed is not in it: who has only one
        of the two has nothing. It is as old as it is: see `--backup-dir` for a replica that follows
        every change.
        """
        from cromford.cli import backup_home  # noqa: PLC0415 - keys and journals; see there

        answer = backup_home.created(
            invocation, role, file.absolute(), overwrites=overwrite, passphrase_file=passphrase_file
        )
        show(invocation, answer, backup_lists.created)

    return create


def _verify(role: str) -> click.Command:
    @click.command()
    @_backup_argument
    @_passphrase_option
    @invocation_options
    @click.pass_obj
    def verify(invocation: Invocation, /, *, backup: Path, passphrase_file: Path | None) -> None:
        """Check that a backup could be put back, and say what is in it.

        BACKUP is a file that `backup create` wrote, or the directory of a replica. All of it is
        read, decrypted and folded as a daemon would; the store here stays as it is.
        """
        from cromford.cli import backup_home  # noqa: PLC0415 - keys and journals; see there

        answer = backup_home.verified(invocation, role, backup, passphrase_file=passphrase_file)
        show(invocation, answer, backup_lists.verified)

    return verify


def _restore(role: str) -> click.Command:
    @click.command()
    @_backup_argument
    @_passphrase_option
    @click.option("--yes", is_flag=True, help="Do not ask: a restored store is a marked one.")
    @flag_of("chain.allow_mainnet")
    @invocation_options
    @click.pass_obj
    def restore(
        invocation: Invocation,
        /,
        *,
        backup: Path,
        passphrase_file: Path | None,
        yes: bool,
        **flags: Any,  # noqa: ANN401 - the option of `flag_of`
    ) -> None:
        """Put a backup's store into a home that has the seed and no journal.

        The words come first: `seed restore`. What came after the backup was made is lost, so the
        store is marked: its channels take no update and publish no commitment, unless the mark of
        `--mark-dir` proves that nothing was lost. Never put back a backup of a store that still
        exists anywhere: use that one.
        """
        from cromford.cli import backup_home  # noqa: PLC0415 - keys and journals; see there

        home = backup_home.home_for_restore(invocation, role, flags)
        confirm(
            invocation,
            f"Put the store of {backup} into {home.path}, marked as restored?",
            yes=yes,
            why="a restored store is marked, and its channels may only close",
            remediation="Add --yes, where the store itself is lost.",
        )
        answer = backup_home.restored(home, backup, passphrase_file=passphrase_file)
        show(invocation, answer, backup_lists.restored)

    return restore


def _status(role: str) -> click.Command:
    @click.command()
    @invocation_options
    @click.pass_obj
    def status(invocation: Invocation) -> None:
        """Show how safe the store is: its replica, its mark, whether it was restored."""
        from cromford.cli import backup_home  # noqa: PLC0415 - keys and journals; see there

        show(invocation, backup_home.status(invocation, role), backup_lists.status)

    return status


def _begin_mark(role: str) -> click.Command:
    @click.command(name="begin-mark")
    @click.option("--yes", is_flag=True, help="Do not ask: of an older copy it loses money.")
    @invocation_options
    @click.pass_obj
    def begin_mark(invocation: Invocation, /, *, yes: bool) -> None:
        """Begin a new mark where the old one is gone, or can be compared no more.

        Only if you know that the store of the running daemon is the newest there is: an older copy
        would go on as if nothing were lost, and lose its channels.
        """
        confirm(
            invocation,
            "Is this store the newest there is, and no older copy of it?",
            yes=yes,
            why="an older copy that goes on loses its channels",
            remediation="Look at `backup status`, then add --yes.",
        )
        show(invocation, invocation.call(role, "backup_begin_mark"), backup_lists.mark)

    return begin_mark
