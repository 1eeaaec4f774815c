/** Who waits for a factory, and where clients find this LSP. */

import { h } from "./dom.js";
import { blocks, counted, id, number, sat } from "./format.js";
import { facts, note, panel, table } from "./panel.js";

const NOT_LISTENING = "nothing yet: it listens once it has read a block";

export function lobbyPanel(live) {
  live.add("lobby", "/v1/lobby");
  panel("lobby", live, ["lobby", "status"], draw);
}

function draw(lobby, status) {
  return [
    facts([
      ["clients connect to", h("code", { class: "long" }, lobby.address ?? NOT_LISTENING)],
      ["clients", `${number(status.n_connected)} connected, ${number(status.n_waiting)} waiting`],
      ["a factory takes", `${lobby.min_clients} to ${counted(lobby.max_clients, "client")}`],
    ]),
    lobby.waiting.length
      ? table(
          "Clients that wait",
          ["client", "#capacity", "#at least", "#uptime", "moves"],
          lobby.waiting.map((one) => [
            id(one.node_id),
            sat(one.capacity_sat),
            sat(one.capacity_least_sat),
            blocks(one.uptime_blocks),
            one.is_moving ? "yes" : "no",
          ]),
        )
      : note("Nobody waits."),
    lobby.banned.map((one) =>
      note(`Banned until height ${number(one.until_height)}: ${one.node_id}`),
    ),
  ];
}
