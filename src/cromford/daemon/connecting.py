"""From what a daemon is told of its node to the node itself."""

from cromford.adapters.bitcoind import BitcoindChain
from cromford.daemon.home import PASSWORD, read_named
from cromford.daemon.options import ChainOptions


def connect_chain(options: ChainOptions) -> BitcoindChain:
    """Return the chain that the options name.

    Raises:
        UnreadableFile: If the password file cannot be read.
    """
    if options.cookie_file is not None:
        return BitcoindChain(options.url, cookie_path=options.cookie_file)
    if options.user is None or options.password_file is None:
        raise ValueError("chain: a cookie file, or a user and a password file")
    password = read_named(options.password_file, PASSWORD).strip()
    return BitcoindChain(options.url, user=options.user, password=password)
