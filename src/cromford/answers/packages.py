"""Exit packages: the document (docs/exit-package.md), and what an agent says that holds them."""

from typing import Literal, NotRequired, TypeAlias, TypedDict

from cromford.answers.chain import NodeStanding
from cromford.answers.units import (
    Blocks,
    Count,
    Height,
    HexBytes,
    HexId,
    NodeId,
    Outpoint,
    Sat,
    SatPerVb,
    SeenHeight,
    Txid,
    VBytes,
    Vout,
)

PackageStatus: TypeAlias = Literal[
    "waiting", "publishing", "on_chain", "replaced", "nothing_found", "unseen", "failed"
]
PackageStepStatus: TypeAlias = Literal[
    "later", "confirmed", "refused", "published", "waits", "not_needed"
]


class PackageFunding(TypedDict):
    """The funding output that a package's path leads down from, and when that expires."""

    txid: Txid
    vout: Vout
    amount_sat: Sat
    script_pubkey: HexBytes
    internal_key: HexId
    lsp_pubkey: HexId
    expiry_height: Height


class PackageChannel(TypedDict):
    """Which output of the last transaction is the channel's, and the two keys of it."""

    vout: Vout
    funding_pubkeys: list[NodeId]


class PackageReplacedState(TypedDict):
    """A state of the leaf that was replaced, unsigned, and what takes it apart."""

    state: HexBytes
    poisons: list[HexBytes]


class PackageDocument(TypedDict):
    """One client's way down to its channel, for whoever is to publish it: no key is in it.

    The commitment is there once the exit was started, since no update follows it then; `replaced`
    where the leaf had other states before.
    """

    format: Literal["cromford-exit-package"]
    version: Literal[1]
    network: str
    funding: PackageFunding
    transactions: list[HexBytes]
    channel: PackageChannel
    commitment: NotRequired[HexBytes]
    replaced: NotRequired[list[PackageReplacedState]]


class PackageFacts(TypedDict):
    """What is true of a package whatever the chain is like.

    Its transactions pay `lowest_feerate_sat_per_vb` at least; up to `with_anchors_sat_per_vb` their
    own anchors raise them.
    """

    package_id: HexId
    network: str
    funding_outpoint: Outpoint
    channel_outpoint: Outpoint
    channel_sat: Sat
    expiry_height: Height
    has_commitment: bool
    n_transactions: Count
    lowest_feerate_sat_per_vb: SatPerVb
    with_anchors_sat_per_vb: SatPerVb


class PackageStep(TypedDict):
    """A transaction of a package, how far it is, and from when on it can be in a block."""

    name: str
    txid: Txid
    vsize: VBytes
    fee_sat: Sat
    delay_blocks: Blocks
    status: PackageStepStatus
    height: Height | None


class PackageProgress(TypedDict):
    """How far a package is, as of `height`, and what is next.

    `refused` says why the node does not take what is due. The deadline and `exit_blocks` are None
    where nothing of the path is on chain, or nothing was looked at yet.
    """

    height: SeenHeight | None
    status: PackageStatus
    exit_deadline_height: Height | None
    exit_blocks: Blocks | None
    steps: list[PackageStep]
    refused: str | None
    next: str


class KeptPackage(PackageFacts, PackageProgress):
    """A package in an agent's care.

    `begun_height` is from when on it is published. `passes_now` says whether its transactions get
    into the node's mempool at today's feerate, None while that is unknown.
    """

    begun_height: Height | None
    passes_now: bool | None


class KeptPackages(TypedDict):
    """Every package that an agent holds."""

    kind: Literal["coinless"]
    packages: list[KeptPackage]


class AddedPackage(KeptPackage):
    """A package that an agent took; `added` is false where it held it already."""

    added: bool


class WithdrawnPackage(TypedDict):
    """A package that an agent does not look after any more."""

    withdrawn: bool
    package_id: HexId
    begun_height: Height | None


class BroadcastPackage(PackageFacts, PackageProgress):
    """A package that was published by hand, as far as it goes now.

    `is_expiry_checked`: the chain says that its funding expires when it says. `is_settled`: nothing
    is left to do.
    """

    is_expiry_checked: bool
    is_settled: bool


class AgentStatus(TypedDict):
    """How an agent is: its node, and the packages that it holds."""

    role: Literal["agent"]
    kind: Literal["coinless"]
    version: str
    network: str
    height: SeenHeight
    synced: bool
    chain: NodeStanding
    mempool_min_sat_per_vb: SatPerVb | None
    datadir: str
    chain_url: str
    n_packages: Count
    packages_max: Count
    n_unreadable: Count
    n_publishing: Count
    n_refused: Count
    next_deadline_height: Height | None
