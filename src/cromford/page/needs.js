/** What a session's token is not for is left out, and says which scope it needs. */

import { byId, h } from "./dom.js";
import { may, onSession } from "./session.js";

/**
 * Show an element to whoever may use it, and to the others why it is not there.
 * @param {string} id Of the element.
 * @param {"read"|"receive"|"spend"|"operate"} scope
 * @param {string} what What it is for, as in `pay`.
 */
export function needsScope(id, scope, what) {
  const element = byId(id);
  const told = h("p", { class: "dim" }, `To ${what} here takes a token with the scope `);
  told.append(h("code", {}, scope), ".");
  element.before(told);
  onSession(() => {
    element.hidden = !may(scope);
    told.hidden = may(scope);
  });
}
