/** What was paid and asked for, newest first. */

import { id, msat, time } from "./format.js";
import { note, table } from "./panel.js";
import { pagedPanel } from "./pages.js";
import { whatFor } from "./words.js";

const DIRECTIONS = { out: "paid out", in: "invoice", move: "moved" };

export function historyPanel(live, section = "history") {
  pagedPanel(section, live, {
    name: "payments",
    path: "/v1/payments",
    entriesOf: (page) => page.payments,
    draw: (payments) => (payments.length ? paymentTable(payments) : note("No payments.")),
  });
}

function paymentTable(payments) {
  return table(
    "Payments",
    ["begun", "what", "~status", "#amount", "#fee", "with", "~for", "payment hash"],
    payments.map((one) => [
      time(one.created_at),
      DIRECTIONS[one.direction],
      statusOf(one),
      msat(one.amount_msat),
      "fee_msat" in one ? msat(one.fee_msat) : "-",
      id(one.payee),
      whatFor(one),
      id(one.payment_hash),
    ]),
  );
}

function statusOf(one) {
  if (one.failure) return `failed: ${one.failure}`;
  if (one.may_lose_msat) return "unknown, may be lost";
  return one.status;
}
