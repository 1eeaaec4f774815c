/** The ceremony that is under way: its phase, whom it waits for, and how long it may still take. */

import { h, show } from "./dom.js";
import { counted, id, word } from "./format.js";
import { facts, note, panel } from "./panel.js";

const PHASES = ["signing_below", "signing_root", "acknowledging", "funding"];
const MARKS = { done: "✓", now: "▶", later: "○" };

let until = null; // When the step's time is over, by this machine's clock.

export function ceremonyPanel(live) {
  const building = () => underWay(live.value("factories"));
  // Asked anew with each phase, not with each event: its answer is long where many take part.
  live.add("ceremony", () => {
    const factory = building();
    return factory && `/v1/factories/${factory.factory_id}#${factory.phase}`;
  });
  panel("ceremony", live, ["factories", "status"], draw);
  live.watch(["ceremony"], ({ value }) => {
    const left = value?.seconds_left ?? null;
    until = left === null ? null : Date.now() + 1000 * left;
    tick();
  });
  setInterval(tick, 1_000);
}

function underWay(answer) {
  return answer?.factories.findLast((one) => one.status === "building" && !one.aborted) ?? null;
}

function tick() {
  const place = document.getElementById("ceremony-left");
  if (place === null) return;
  const seconds = until === null ? null : Math.max(0, Math.round((until - Date.now()) / 1000));
  show(place, seconds === null ? "-" : `${seconds} s`);
}

function draw(answer, status) {
  const factory = underWay(answer);
  if (factory === null) {
    if (status.build === null) return note("None.");
    return h("p", {}, `A build is under way: ${word(status.build.phase)}.`);
  }
  const now = PHASES.indexOf(factory.phase);
  const missing = factory.holdouts.map((client) => `client ${client}`).join(", ");
  return [
    facts([
      ["factory", id(factory.factory_id)],
      ["clients", counted(factory.n_clients, "client")],
    ]),
    h(
      "ol",
      { class: "phases" },
      PHASES.map((phase, index) => {
        const stands = index < now ? "done" : index === now ? "now" : "later";
        return h(
          "li",
          { class: stands, "aria-current": stands === "now" ? "step" : null },
          h("span", { "aria-hidden": "true" }, `${MARKS[stands]} `),
          word(phase),
          h("span", { class: "unseen" }, `, ${stands}`),
        );
      }),
    ),
    facts([
      ["waits for", missing || "nobody"],
      ["left for this step", h("span", { id: "ceremony-left", "data-own": "" })],
    ]),
  ];
}
