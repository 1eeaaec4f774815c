/** All factories of an LSP: on one time line, and in a list of which one is picked. */

import { byId, showPicture } from "./dom.js";
import { sat, short } from "./format.js";
import { loud, note, panel, table } from "./panel.js";
import { choice } from "./picked.js";
import { depth, lspStage, timeLeft } from "./words.js";

export function factoriesPanel(live) {
  live.add(
    "time_line",
    () => (live.value("factories")?.factories.length ? "/v1/factories/picture" : null),
    { isPicture: true },
  );
  live.watch(["time_line"], ({ value }) => showPicture(byId("time-line"), value ?? ""));
  panel("factories", live, ["factories"], (answer) => draw(answer, live));
}

function draw(answer, live) {
  if (!answer.factories.length) return note("No factories.");
  return table(
    "Factories, newest first",
    ["factory", "~status", "clients", "funding", "confirmed", "~time left"],
    answer.factories.toReversed().map((factory) => {
      const { text, level } = timeLeft(factory);
      return [
        choice(factory, answer, live),
        lspStage(factory),
        `${factory.ready_clients} of ${factory.n_clients} ready`,
        `${sat(factory.funding_amount_sat)}, ${short(factory.funding_txid)}`,
        depth(factory),
        loud(level, text),
      ];
    }),
  );
}
