/** What an LSP sold, and what it earned. */

import { id, msat, number, sat, time } from "./format.js";
import { facts, note, table } from "./panel.js";
import { pagedPanel } from "./pages.js";
import { sold } from "./words.js";

export function ledgerPanel(live) {
  pagedPanel("ledger", live, {
    name: "ledger",
    path: "/v1/ledger",
    entriesOf: (page) => page.sales,
    draw: (sales, newest) => [
      facts([
        ["liquidity sold", sold(newest)],
        ["earned by forwarding", msat(newest.forwarding_msat)],
      ]),
      sales.length ? saleTable(sales) : note("Nothing was sold."),
    ],
  });
}

function saleTable(sales) {
  return table(
    "Sales",
    ["#height", "in force", "client", "factory", "#sold", "#for", "#channel holds"],
    sales.map((sale) => [
      number(sale.height),
      time(sale.in_force_at),
      [`${sale.client} (`, id(sale.node_id), ")"],
      id(sale.factory_id),
      sat(sale.amount_sat),
      msat(sale.price_msat),
      sat(sale.capacity_sat),
    ]),
  );
}
