"""From what a daemon is told of its node to the node itself."""

from cromford.adapters.bitcoind import BitcoindChain
from cromford.daemon.home import PASSWORD, UnreadableFile, read_named, without_mark
from cromford.daemon.options import ChainOptions


def connect_chain(options: ChainOptions) -> BitcoindChain:
    """Return the chain that the options name.

    Raises:
        UnreadableFile: If the password file cannot be read.
    """
    if options.cookie_file is not None:
        return BitcoindChain(options.url, cookie_path=options.cookie_file)
    user, path = options.user, options.password_file
    if user is None or path is None:
        raise ValueError("chain: a cookie file, or a user and a password file")

    def password() -> str:
        return without_mark(read_named(path, PASSWORD).split("\n", 1)[0]).strip()

    def password_now() -> str | None:
        try:
            return password()
        except UnreadableFile:
            return None

    return BitcoindChain(options.url, user=user, password=password(), password_now=password_now)
