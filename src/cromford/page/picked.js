/** Which factory is looked at. */

import { withQuery } from "./api.js";

const PICKED = "cromford-factory"; // A page that is loaded again shows the same.

/** The id of the factory that was picked; by default the newest that was not aborted. */
export function picked(answer) {
  const factories = answer?.factories ?? [];
  const wanted = sessionStorage.getItem(PICKED);
  const one =
    factories.find((factory) => factory.factory_id === wanted) ??
    factories.findLast((factory) => !factory.aborted) ??
    factories.at(-1);
  return one?.factory_id ?? null;
}

export function pick(factoryId) {
  sessionStorage.setItem(PICKED, factoryId);
}

/** A path of the picked factory; null without one. */
export function ofPicked(answer, rest = "") {
  const factoryId = picked(answer);
  return factoryId && withQuery(`/v1/factories/${factoryId}${rest}`);
}
