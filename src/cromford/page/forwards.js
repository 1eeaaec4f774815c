/** What goes and went through an LSP, the newest first. */

import { id, msat, time } from "./format.js";
import { note, table } from "./panel.js";
import { pagedPanel } from "./pages.js";

export function forwardsPanel(live) {
  pagedPanel("forwards", live, {
    name: "forwards",
    path: "/v1/forwards",
    entriesOf: (page) => [...page.in_flight, ...page.forwards],
    draw: (forwards, page) => (forwards.length ? forwardTable(forwards) : note(noneOf(page))),
  });
}

function noneOf(page) {
  return page.next ? "Nothing was forwarded in the newest factories." : "Nothing was forwarded.";
}

function forwardTable(forwards) {
  return table(
    "Forwards",
    ["begun", "~forwarded", "ended", "from", "to", "#amount", "#fee", "payment hash"],
    forwards.map((one) => [
      time(one.created_at),
      statusOf(one),
      time(one.settled_at),
      id(one.from_node_id),
      id(one.to_node_id),
      msat(one.amount_msat),
      msat(one.fee_msat),
      id(one.payment_hash),
    ]),
  );
}

function statusOf(one) {
  if (one.waits_for) return `held: ${one.waits_for}`;
  return one.failure ? `${one.status}: ${one.failure}` : one.status;
}
