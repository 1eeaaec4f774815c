/** A list that comes newest first: all that is shown of it is kept up to date, and more is asked for. */

import { withQuery } from "./api.js";
import { byId, h, show } from "./dom.js";
import { counted } from "./format.js";
import { UNKNOWN, note, showDrawn, showProblem } from "./panel.js";

const LIMIT = 25;
const LIMIT_MAX = 1_000; // As the API answers at the most.

/**
 * Show a list in a section.
 * @param {string} id Of the section.
 * @param {Live} live
 * @param {{name: string, path: string, draw: function(Array, Object): *, entriesOf: function}} what
 *   `name` of the answer; `draw` shows the entries, with the answer beside them.
 */
export function pagedPanel(id, live, { name, path, entriesOf, draw }) {
  const body = h("div", { class: "body" });
  const problem = h("p", { class: "problem", role: "alert" });
  const told = h("p", { class: "dim", role: "status" });
  const button = h("button", { type: "button", class: "quiet", hidden: true }, "Show older");
  byId(id).append(problem, body, h("div", { class: "more" }, button, told));
  let limit = LIMIT;
  let nBefore = null; // How many there were when older ones were asked for.
  let more = ""; // How many of those came.

  // One answer, however long: what moves down in it stays whole, and none of it grows old.
  live.add(name, () => withQuery(path, { limit }));
  live.watch([name], ({ value, error }) => {
    showProblem(problem, error);
    if (value === undefined) {
      show(body, error === null ? note(UNKNOWN) : null);
      show(told);
      button.hidden = true;
      nBefore = null;
      more = "";
      if (error === null) limit = LIMIT;
      return;
    }
    const entries = entriesOf(value);
    showDrawn(body, () => draw(entries, value));
    // An answer that has fewer than it was asked for looked at all that it may: none has more.
    const isCut = value.next !== null && (limit === LIMIT_MAX || entries.length < limit);
    button.hidden = value.next === null || isCut;
    if (nBefore !== null) more = `${counted(entries.length - nBefore, "more", "more")} shown.`;
    nBefore = null;
    show(told, `${more} ${isCut ? "The command line shows what is older." : ""}`.trim());
  });

  button.onclick = () => {
    if (nBefore !== null) return;
    nBefore = entriesOf(live.value(name)).length;
    limit = Math.min(2 * limit, LIMIT_MAX);
    live.refresh(name);
  };
}
