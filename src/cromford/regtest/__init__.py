"""An embedded regtest node on libbitcoinkernel that answers Bitcoin Core's JSON-RPC.

For trying, testing and teaching. It is never for real money: it has no peers, and of Core's
mempool policy only what this project depends on.
"""
