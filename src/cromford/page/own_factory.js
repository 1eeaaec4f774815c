/** A client's factory: its picture, how it stands, and how long it has; the lobby before there is one. */

import { withQuery } from "./api.js";
import { byId, h, showPicture } from "./dom.js";
import { blocks, msat, number, sat, short } from "./format.js";
import { facts, loud, note, panel, table } from "./panel.js";
import { choice, picked } from "./picked.js";
import { clientStage, depth, timeLeft } from "./words.js";

export function ownFactoryPanel(live) {
  panel("factory", live, ["factories", "status"], (answer, status) => draw(answer, status, live));
  live.add("factory_picture", () => ofPicked(live, "/v1/factory/picture"), { isPicture: true });
  live.watch(["factory_picture"], ({ value }) => showPicture(byId("factory-picture"), value ?? ""));
}

/** A path about the factory that was picked; null without one. */
export function ofPicked(live, path) {
  const factory = picked(live.value("factories"));
  return factory && withQuery(path, { factory_id: factory.factory_id });
}

function draw(answer, status, live) {
  const { factories } = answer;
  return [
    lobby(status),
    factories.length
      ? table(
          "Factories",
          ["factory", "~status", "you", "#channel", "confirmed", "~time left"],
          factories.map((factory) => {
            const { text, level } = timeLeft(factory);
            return [
              choice(factory, answer, live),
              clientStage(factory),
              `client ${factory.client} of ${factory.n_clients ?? "?"}`,
              sat(factory.capacity_sat),
              depth(factory),
              loud(level, text),
            ];
          }),
        )
      : note("No factories."),
    looking(factories),
  ];
}

function looking(factories) {
  const looks = factories.map((factory) => factory.look_blocks).filter(Boolean);
  return looks.length
    ? note(`Your node must see the chain at least every ${blocks(Math.min(...looks))}.`)
    : null;
}

/** What the client waits for, and what its LSP offers. */
function lobby(status) {
  const { wish, lobby: offer } = status;
  const pausedUntil = status.paused_until_height;
  return facts([
    ["LSP", h("span", {}, status.connected ? "connected" : "not connected")],
    ["LSP offers", offer && offered(offer)],
    [
      "price of a payment",
      offer && `${msat(offer.fee_base_msat)} and ${number(offer.fee_proportional_millionths)} ppm`,
    ],
    ["wish", wish === null ? "nothing" : wished(wish)],
    ["in the lobby", status.joined ? "yes" : "no"],
    ["refused", status.refusal],
    [
      "joins again",
      pausedUntil === null
        ? null
        : `after too many that came to nothing: at height ${number(pausedUntil)}`,
    ],
  ]);
}

function offered(offer) {
  return (
    `${sat(offer.capacity_min_sat)} to ${sat(offer.capacity_max_sat)}, ` +
    `${offer.min_clients} to ${number(offer.max_clients)} clients, ` +
    `${offer.deadline_seconds} s to answer`
  );
}

function wished(wish) {
  const from = wish.moves_from ? `, to move out of factory ${short(wish.moves_from)}` : "";
  const least =
    wish.capacity_least_sat === wish.capacity_sat
      ? ""
      : `, at least ${sat(wish.capacity_least_sat)}`;
  return `${sat(wish.capacity_sat)}${from}${least}`;
}
