/** The factory that was picked: its picture, its channels, its leaves, its ledger. */

import { byId, h, show, showPicture } from "./dom.js";
import { id, msat, number, sat, word } from "./format.js";
import { facts, loud, panel, table } from "./panel.js";
import { picked } from "./picked.js";
import { advancing, depth, lspStage, onItsWay, timeLeft } from "./words.js";

export function oneFactoryPanel(live) {
  live.add("balances", "/v1/balances");
  const path = (rest) => {
    const factory = picked(live.value("factories"));
    return factory && `/v1/factories/${factory.factory_id}${rest}`;
  };
  live.add("factory", () => path(""));
  live.add("factory_picture", () => path("/picture"), { isPicture: true });
  panel("factory", live, ["factory", "balances"], draw, { without: "No factories." });
  live.watch(["factory"], ({ value }) => {
    show(byId("factory-heading"), value ? `Factory ${value.factory_id.slice(0, 12)}` : "Factory");
  });
  live.watch(["factory_picture"], ({ value }) => showPicture(byId("factory-picture"), value ?? ""));
}

function draw(factory, balances) {
  const { text, level } = timeLeft(factory);
  const channels = balances.channels.filter((one) => one.factory_id === factory.factory_id);
  return [
    facts([
      ["factory", h("code", { class: "long" }, factory.factory_id)],
      ["status", lspStage(factory)],
      ["funding", `${sat(factory.funding_amount_sat)}, ${depth(factory)}`],
      ["time left", loud(level, text)],
      ["expiry", `height ${number(factory.expiry_height)}`],
    ]),
    channels.length ? channelTable("Channels of this factory", channels) : null,
    factory.leaves.length ? leafTable(factory.leaves) : null,
    factory.advances.map((advance) => h("p", {}, advancing(advance))),
    factory.ledger.length ? ledgerTable(factory.ledger) : null,
    seats(factory.placed),
  ];
}

/** The money in channels: of one factory, or of all, with their sum. */
export function channelTable(name, channels, total = null) {
  const areMany = total !== null;
  const row = (first, one) => [
    first,
    ...(areMany ? [one.factory_id ? id(one.factory_id) : ""] : []),
    one.status ?? "",
    msat(one.own_msat),
    msat(one.peer_msat),
    msat(one.spendable_msat),
    msat(one.receivable_msat),
    onItsWay(one),
  ];
  return table(
    name,
    [
      "client",
      ...(areMany ? ["factory"] : []),
      "status",
      ...["#yours", "#client's", "#can send", "#can receive", "#on its way"],
    ],
    channels.map((channel) => row(id(channel.node_id), channel)),
    { last: total && row("in all", total), isShown: true },
  );
}

function leafTable(leaves) {
  return table(
    "Leaves",
    ["leaf", "clients", "state", "#L-stock", "#sales left"],
    leaves.map((leaf) => [
      leaf.leaf || "root",
      leaf.clients.join(", "),
      `${leaf.state_index} of 0..${leaf.states - 1}`,
      sat(leaf.lstock_sat),
      number(leaf.sales_left),
    ]),
    { isShown: true },
  );
}

function ledgerTable(ledger) {
  return table(
    "Ledger of its funding",
    ["paid by", "~for", "#amount", "~comes back"],
    ledger.map((line) => [line.payer, word(line.item), sat(line.amount_sat), line.recovered]),
    { isShown: true },
  );
}

function seats(placed) {
  return table(
    "Seats",
    ["client", "node id", "leaf", "#capacity", "~why"],
    placed.map((seat) => [
      String(seat.client),
      id(seat.node_id),
      seat.leaf || "root",
      sat(seat.capacity_sat),
      seat.reason,
    ]),
    { isShown: true },
  );
}
