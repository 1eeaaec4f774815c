/** A client's money: what it can send and receive, what leaving would bring, and its wallet. */

import { h } from "./dom.js";
import { id, msat, sat } from "./format.js";
import { facts, note, panel, table } from "./panel.js";
import { channelTimeLeft, liquidity, onItsWay } from "./words.js";

export function balancePanel(live) {
  live.add("balance", "/v1/balance");
  panel("balance", live, ["balance", "status"], draw);
}

function draw(balance, status) {
  const { total, channels } = balance;
  const { wallet } = status;
  return [
    h(
      "dl",
      { class: "figures" },
      figure("can send", msat(total.spendable_msat)),
      figure("can receive", msat(total.receivable_msat)),
      figure("on chain", sat(wallet.confirmed_sat)),
    ),
    channels.length ? channelTable(channels, total) : note("No channels."),
    channels.flatMap(liquidity).map(note),
    channels.flatMap(troubles),
    facts([
      ["wallet", walletText(wallet)],
      ["wallet address", h("code", { class: "long" }, wallet.address || "-")],
    ]),
  ];
}

function figure(name, amount) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, amount));
}

function channelTable(channels, total) {
  const row = (first, one) => [
    first,
    one.status ?? "",
    msat(one.own_msat),
    msat(one.spendable_msat),
    msat(one.receivable_msat),
    onItsWay(one),
    sat(one.exit_sat),
    one.status ? channelTimeLeft(one) : "",
  ];
  return table(
    "Channels",
    ["factory", "status", "#yours", "#can send", "#can receive", "#on its way", "#after an exit", "time"],
    channels.map((channel) => row(id(channel.factory_id), channel)),
    { last: row("in all", total) },
  );
}

function troubles(channel) {
  const name = `channel ${channel.factory_id.slice(0, 12)}`;
  const told = [];
  if (channel.failed && !["exiting", "marked"].includes(channel.status)) {
    told.push(`${name} failed: ${channel.failed}`);
  }
  if (channel.marked) told.push(`${name} is marked: ${channel.marked}`);
  if (channel.close_limit_msat !== null && channel.status !== "closing") {
    told.push(
      `in ${name} no more than ${msat(channel.close_limit_msat)} can be yours: ` +
        "a close was signed that pays no more",
    );
  }
  return told.map((text) => h("p", { class: "soon" }, text));
}

/** The wallet in a line. */
export function walletText(wallet) {
  const parts = [
    `${sat(wallet.confirmed_sat)} confirmed`,
    `${sat(wallet.free_sat)} free`,
    `${sat(wallet.reserved_sat)} reserved`,
    wallet.arriving_sat ? `${sat(wallet.arriving_sat)} arriving from factories` : null,
    wallet.change_sat ? `${sat(wallet.change_sat)} coming back as change` : null,
    wallet.immature_sat ? `${sat(wallet.immature_sat)} immature` : null,
  ];
  return parts.filter(Boolean).join(", ");
}
