/** Which factory is looked at: what was picked, and the buttons to pick another. */

import { h } from "./dom.js";
import { short } from "./format.js";
import { isOver } from "./words.js";

const PICKED = "cromford-factory"; // A page that is loaded again shows the same.
const OF_PICKED = ["factories", "factory", "factory_picture", "exit_plan", "exit_status"];

/** The factory that was picked; by default the newest that lives: of a client's, one with money. */
export function picked(answer) {
  const factories = answer?.factories ?? [];
  const wanted = sessionStorage.getItem(PICKED);
  return (
    factories.find((factory) => factory.factory_id === wanted) ??
    factories.findLast((factory) => lives(factory) && factory.ready_sent) ??
    factories.findLast((factory) => lives(factory)) ??
    factories.findLast((factory) => !factory.aborted) ??
    factories.at(-1) ??
    null
  );
}

/** Whether there is something in a factory: a client's was built, and none is over. */
function lives(factory) {
  return !factory.aborted && !isOver(factory) && (factory.stage ?? "complete") === "complete";
}

/** A button that picks a factory. */
export function choice(factory, answer, live) {
  return h(
    "button",
    {
      type: "button",
      class: "choice",
      "aria-pressed": String(factory.factory_id === picked(answer).factory_id),
      title: factory.factory_id,
      onclick: () => {
        sessionStorage.setItem(PICKED, factory.factory_id);
        for (const name of OF_PICKED) live.refresh(name);
      },
    },
    short(factory.factory_id),
  );
}
