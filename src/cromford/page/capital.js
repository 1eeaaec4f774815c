/** An LSP's money: free, locked until which height, earned; its wallet and its price. */

import { walletText } from "./balance.js";
import { h } from "./dom.js";
import { blocks, days, id, msat, number, sat } from "./format.js";
import { facts, loud, panel, table } from "./panel.js";
import { price, sold } from "./words.js";

const NEAR_BLOCKS = 1008;

export function capitalPanel(live) {
  panel("capital", live, ["status"], draw);
}

function draw(status) {
  const { capital, wallet } = status;
  return [
    h(
      "dl",
      { class: "figures" },
      figure("free", sat(capital.free_sat)),
      figure("locked", sat(capital.locked_sat)),
      figure("earned", msat(capital.earned_msat)),
    ),
    capital.locked.length
      ? table(
          "Locked in factories",
          ["factory", "#locked", "#until height", "#in"],
          capital.locked.map((one) => [
            id(one.factory_id),
            sat(one.amount_sat),
            number(one.expiry_height),
            left(one.blocks_to_expiry),
          ]),
        )
      : null,
    facts([
      ...(capital.lacking_sat
        ? [["capital lacking", loud("soon", `${sat(capital.lacking_sat)} in coins, for fees`)]]
        : []),
      ["capital reserved", sat(capital.reserved_sat)],
      ["liquidity sold", sold(capital)],
      ["inbound liquidity", price(status.price)],
      ["wallet", walletText(wallet)],
      ["wallet address", h("code", { class: "long" }, wallet.address || "-")],
    ]),
  ];
}

function left(nBlocks) {
  if (nBlocks <= 0) return loud("soon", "EXPIRED");
  return loud(nBlocks <= NEAR_BLOCKS ? "soon" : "", `${blocks(nBlocks)}, ${days(nBlocks)}`);
}

function figure(name, amount) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, amount));
}
