"""Which method answers with which type, of each role; daemons are proven to do so.

A picture is a `str`: the text of its SVG.
"""

from collections.abc import Mapping
from typing import Final

from cromford.answers.backup import BackupMade, BackupStatus, MarkState
from cromford.answers.bans import BannedNode, BannedNodes, LobbyAnswer
from cromford.answers.chain import RescanBegun
from cromford.answers.channels import LspBalances, OwnBalance
from cromford.answers.closes import CloseAnswer
from cromford.answers.events import EventsAnswer
from cromford.answers.exits import ExitBegun, ExitPause, ExitPlan, ExitStatus
from cromford.answers.export import FactoryExport
from cromford.answers.factories import (
    FactoryVerification,
    LspFactories,
    LspFactory,
    MoveBegun,
    OwnFactories,
    OwnFactory,
)
from cromford.answers.fundings import (
    AbandonedFunding,
    BuildAnswer,
    BumpedFunding,
    ReplacedFunding,
)
from cromford.answers.market import AskingPrice, LiquidityQuote, PurchaseOutcome, SalesLedger
from cromford.answers.packages import (
    AddedPackage,
    AgentStatus,
    KeptPackages,
    PackageDocument,
    WithdrawnPackage,
)
from cromford.answers.payments import (
    ForwardsAnswer,
    FoundForwards,
    FoundPayments,
    LspPaymentsAnswer,
    PaymentAnswer,
    PaymentsAnswer,
)
from cromford.answers.plan import PlanAnswer
from cromford.answers.status import ClientStatus, LspStatus, Stopping, WishLeft, WishState
from cromford.answers.tokens import BearerToken, BearerTokens, NewBearerToken
from cromford.answers.wallet import (
    AbandonedPayment,
    BumpedPayment,
    NewAddress,
    OwnCoins,
    SentCoins,
    SplitCoins,
    WalletBalance,
)
from cromford.answers.webhooks import NewWebhook, WebhookState, WebhookStates

_SHARED: Final[Mapping[str, type]] = {
    "stop": Stopping,
    "events": EventsAnswer,
    "pay": PaymentAnswer,
    "payment_show": FoundPayments,
    "rescan": RescanBegun,
    "backup_create": BackupMade,
    "backup_status": BackupStatus,
    "backup_begin_mark": MarkState,
    "token_add": NewBearerToken,
    "tokens": BearerTokens,
    "token_revoke": BearerToken,
    "webhook_add": NewWebhook,
    "webhooks": WebhookStates,
    "webhook_remove": WebhookState,
    "address": NewAddress,
    "wallet_balance": WalletBalance,
    "wallet_coins": OwnCoins,
    "wallet_send": SentCoins,
    "wallet_split": SplitCoins,
    "wallet_bump": BumpedPayment,
    "wallet_abandon": AbandonedPayment,
}
LSP_ANSWERS: Final[Mapping[str, type]] = {
    **_SHARED,
    "status": LspStatus,
    "lobby": LobbyAnswer,
    "factories": LspFactories,
    "factories_picture": str,
    "factory_show": LspFactory,
    "factory_show_picture": str,
    "factory_export": FactoryExport,
    "factory_abandon": AbandonedFunding,
    "factory_bump": BumpedFunding,
    "factory_replace": ReplacedFunding,
    "build": BuildAnswer,
    "exit_start": ExitBegun,
    "close": CloseAnswer,
    "payments": LspPaymentsAnswer,
    "forwards": ForwardsAnswer,
    "forward_show": FoundForwards,
    "plan": PlanAnswer,
    "plan_picture": str,
    "balances": LspBalances,
    "price": AskingPrice,
    "set_price": AskingPrice,
    "ledger": SalesLedger,
    "bans": BannedNodes,
    "ban_add": BannedNode,
    "ban_remove": BannedNode,
}
CLIENT_ANSWERS: Final[Mapping[str, type]] = {
    **_SHARED,
    "status": ClientStatus,
    "join": WishState,
    "leave": WishLeft,
    "move": MoveBegun,
    "factories": OwnFactories,
    "factory": OwnFactory,
    "factory_picture": str,
    "verify": FactoryVerification,
    "exit_export": PackageDocument,
    "exit_plan": ExitPlan,
    "exit_start": ExitBegun,
    "exit_status": ExitStatus,
    "exit_pause": ExitPause,
    "invoice": PaymentAnswer,
    "invoices": PaymentsAnswer,
    "invoice_show": PaymentAnswer,
    "payments": PaymentsAnswer,
    "qr": str,
    "balance": OwnBalance,
    "liquidity_quote": LiquidityQuote,
    "liquidity_buy": PurchaseOutcome,
}
AGENT_ANSWERS: Final[Mapping[str, type]] = {
    "status": AgentStatus,
    "list": KeptPackages,
    "add": AddedPackage,
    "withdraw": WithdrawnPackage,
    "stop": Stopping,
}
BY_ROLE: Final[Mapping[str, Mapping[str, type]]] = {
    "lsp": LSP_ANSWERS,
    "client": CLIENT_ANSWERS,
    "agent": AGENT_ANSWERS,
}
