"""Keys by names they once had. An old name is refused and names the new one: never both at once.

A name without its unit let somebody write blocks where seconds were meant, and nothing noticed; and
a port has no host.
"""

from typing import Final

RENAMED: Final = {
    "metrics.port": "metrics.listen",
    "lsp.capacity_min": "lsp.capacity_min_sat",
    "lsp.capacity_max": "lsp.capacity_max_sat",
    "lsp.max_exit_delay": "lsp.max_exit_delay_blocks",
    "lsp.feerate": "lsp.feerate_sat_per_vb",
    "lsp.funding_feerate": "lsp.funding_feerate_sat_per_vb",
    "lsp.min_depth": "lsp.min_depth_blocks",
    "lsp.to_self_delay_lsp": "lsp.to_self_delay_lsp_blocks",
    "lsp.to_self_delay_client": "lsp.to_self_delay_client_blocks",
    "lsp.deadline": "lsp.deadline_seconds",
    "client.max_exit_delay": "client.max_exit_delay_blocks",
    "client.max_expiry": "client.max_expiry_blocks",
    "client.min_feerate": "client.min_feerate_sat_per_vb",
    "client.max_feerate": "client.max_feerate_sat_per_vb",
    "client.max_deadline": "client.max_deadline_seconds",
    "client.height_slack": "client.height_slack_blocks",
    "client.min_depth_min": "client.min_depth_blocks_min",
    "client.min_depth_max": "client.min_depth_blocks_max",
    "client.to_self_delay_min": "client.to_self_delay_blocks_min",
    "client.to_self_delay_max": "client.to_self_delay_blocks_max",
    "client.dust_limit_min": "client.dust_limit_sat_min",
    "client.dust_limit_max": "client.dust_limit_sat_max",
}
