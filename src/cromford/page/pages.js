/** A list that comes in pages, newest first: the first page is kept up to date, older ones are asked for. */

import { get, withQuery } from "./api.js";
import { byId, h, show } from "./dom.js";
import { counted } from "./format.js";
import { UNKNOWN, note, showProblem } from "./panel.js";

const LIMIT = 25;

/**
 * Show a list of pages in a section.
 * @param {string} id Of the section.
 * @param {Live} live
 * @param {{name: string, path: string, draw: function(Array, Object): *, entriesOf: function}} what
 *   `name` of the answer; `draw` shows the entries, with the newest answer beside them.
 */
export function pagedPanel(id, live, { name, path, entriesOf, keyOf, draw }) {
  const body = h("div", { class: "body" });
  const problem = h("p", { class: "problem", role: "alert" });
  const told = h("p", { class: "dim", role: "status" });
  const button = h("button", { type: "button", class: "quiet", hidden: true }, "Show older");
  byId(id).append(problem, body, h("div", { class: "more" }, button, told));
  let older = [];
  let next = null;
  let newest;

  const redraw = () => {
    if (newest === undefined) {
      older = [];
      next = null;
      show(body, note(UNKNOWN));
      button.hidden = true;
      return;
    }
    const first = entriesOf(newest);
    const known = new Set(first.map(keyOf));
    show(body, draw([...first, ...older.filter((one) => !known.has(keyOf(one)))], newest));
    button.hidden = next === null;
  };

  live.add(name, withQuery(path, { limit: LIMIT }));
  live.watch([name], ({ value, error }) => {
    showProblem(problem, error);
    // The pages that follow were asked for from where the first one ended, and end where they did.
    if (!older.length) next = value?.next ?? null;
    if (value !== undefined && newest !== undefined && older.length) older = pushed(newest, value, older);
    newest = value;
    redraw();
  });

  /** What moved off the first page belongs to the older ones. */
  function pushed(before, now, rest) {
    const shown = new Set([...entriesOf(now), ...rest].map(keyOf));
    return [...entriesOf(before).filter((one) => !shown.has(keyOf(one))), ...rest];
  }

  button.onclick = async () => {
    if (next === null || button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    try {
      const page = await get(withQuery(path, { limit: LIMIT, after: next }));
      older = [...older, ...entriesOf(page, { isFirst: false })];
      next = page.next;
      showProblem(problem, null);
      redraw();
      show(told, `${counted(entriesOf(page, { isFirst: false }).length, "more", "more")} shown.`);
    } catch (error) {
      showProblem(problem, error);
    } finally {
      button.removeAttribute("aria-disabled");
    }
  };
}
