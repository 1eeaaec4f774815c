/** Every channel of an LSP, and their sum. */

import { h } from "./dom.js";
import { msat } from "./format.js";
import { channelTable } from "./one_factory.js";
import { note, panel } from "./panel.js";

export function channelsPanel(live) {
  panel("channels", live, ["balances"], (answer) => [
    answer.channels.length
      ? channelTable("All channels", answer.channels, answer.total)
      : note("No channels."),
    answer.channels.flatMap(troubles),
  ]);
}

function troubles(channel) {
  const name = `channel ${channel.node_id.slice(0, 12)}`;
  const told = [];
  if (channel.close_limit_msat !== null && channel.status !== "closing") {
    told.push(
      `in ${name} no more than ${msat(channel.close_limit_msat)} can be its client's: ` +
        "a close was signed that pays no more",
    );
  }
  if (channel.failed && !["exiting", "marked"].includes(channel.status)) {
    told.push(`${name} failed: ${channel.failed}`);
  }
  if (channel.marked) told.push(`${name} is marked: ${channel.marked}`);
  return told.map((text) => h("p", { class: "soon" }, text));
}
