"""From what a daemon is told of its node to the node itself."""

from cromford.adapters.bitcoind import BitcoindChain
from cromford.daemon.options import ChainOptions


def connect_chain(options: ChainOptions) -> BitcoindChain:
    """Return the chain that the options name.

    Raises:
        OSError: If the password file cannot be read.
    """
    if options.cookie_file is not None:
        return BitcoindChain(options.url, cookie_path=options.cookie_file)
    if options.user is None or options.password_file is None:
        raise ValueError("chain: a cookie file, or a user and a password file")
    password = options.password_file.read_text(encoding="utf-8").strip()
    return BitcoindChain(options.url, user=options.user, password=password)
