"""The units of what is answered, each under one name: amounts, places on the chain, ids."""

from typing import Annotated, TypeAlias

from msgspec import Meta

# Amounts
Sat: TypeAlias = Annotated[int, Meta(ge=0, description="sat")]
SatChange: TypeAlias = Annotated[int, Meta(description="sat, below 0 where it is lost")]
Msat: TypeAlias = Annotated[int, Meta(ge=0, description="msat, thousandths of a sat")]
SatPerVb: TypeAlias = Annotated[float, Meta(ge=0, description="sat per virtual byte")]

# Sizes and counts
VBytes: TypeAlias = Annotated[int, Meta(ge=0, description="virtual bytes")]
Bytes: TypeAlias = Annotated[int, Meta(ge=0, description="bytes")]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
ClientIndex: TypeAlias = Annotated[
    int, Meta(ge=1, description="a client's place in its factory, from 1 on; the LSP's is 0")
]

# The chain
Height: TypeAlias = Annotated[int, Meta(ge=0, description="block height")]
SeenHeight: TypeAlias = Annotated[int, Meta(ge=-1, description="block height, -1 before the first")]
Blocks: TypeAlias = Annotated[int, Meta(ge=0, description="blocks")]
BlocksLeft: TypeAlias = Annotated[
    int, Meta(description="blocks from the tip on, below 0 where it has passed")
]
Vout: TypeAlias = Annotated[int, Meta(ge=0, description="place among a transaction's outputs")]
Txid: TypeAlias = Annotated[
    str, Meta(pattern="^[0-9a-f]{64}$", description="transaction id, as people read it")
]
Outpoint: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{64}:[0-9]+$", description="txid:vout")]

# Ids and bytes
HexId: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="32 bytes in hex")]
NodeId: TypeAlias = Annotated[
    str, Meta(pattern="^0[23][0-9a-f]{64}$", description="a node's public key, in hex")
]
HexBytes: TypeAlias = Annotated[str, Meta(pattern="^([0-9a-f]{2})*$", description="bytes in hex")]

# Time
UnixTime: TypeAlias = Annotated[int, Meta(ge=0, description="seconds since 1970, UTC")]
Seconds: TypeAlias = Annotated[int, Meta(ge=0, description="seconds")]
