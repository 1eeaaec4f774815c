/** A part of the page: its heading stands in the HTML, what it shows comes from answers. */

import { byId, h, show } from "./dom.js";

const ROWS_OPEN = 40; // A longer table is folded.
const PROSE_SIZE = 28; // What is shorter stays in one line.
export const UNKNOWN = "Not known yet.";

/** Say what failed, and what to do about it, in a place that says so aloud; nothing for null. */
export function showProblem(place, error) {
  if (error === null) {
    show(place);
    return;
  }
  show(place, h("strong", {}, error.message), error.remediation ? ` ${error.remediation}` : null);
}

/** Show what a function makes of answers; where it makes none, nothing old stands there as if it were. */
export function showDrawn(place, draw) {
  try {
    show(place, draw());
  } catch (error) {
    const text = "This cannot be shown. Load the page again: it may be of another version.";
    show(place, h("p", { class: "problem", role: "alert" }, text));
    reportError(error);
  }
}

/**
 * Draw a panel from answers, whenever one of them is new.
 * @param {string} id Of its section.
 * @param {Live} live
 * @param {string[]} names Of the answers; it is drawn once all are there.
 * @param {function(...Object)} draw Returns what is shown of them.
 * @param {{without: string}} more What is said where there is nothing to be asked for.
 */
export function panel(id, live, names, draw, { without = "" } = {}) {
  const body = h("div", { class: "body" });
  const problem = h("p", { class: "problem", role: "alert" });
  byId(id).append(problem, body);
  live.watch(names, (...sources) => {
    const failed = sources.find((source) => source.error !== null);
    showProblem(problem, failed === undefined ? null : failed.error);
    const isThere = sources.every((source) => source.value !== undefined);
    if (isThere) showDrawn(body, () => draw(...sources.map((source) => source.value)));
    else if (sources.some((source) => source.path === null)) show(body, note(without));
    else show(body, failed ? null : note(UNKNOWN));
  });
}

/** Names and values; a value is text, elements, or null to leave its name out. */
export function facts(rows) {
  const there = rows.filter(([, value]) => value !== null && value !== undefined);
  return h(
    "dl",
    { class: "facts" },
    there.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/**
 * A table that scrolls within itself where the page is narrow; folded where it is long.
 * @param {string} name What it lists, for whoever does not see it.
 * @param {string[]} headings One that begins with `#` is of numbers, with `~` of text that wraps.
 * @param {Array<Array>} rows The first cell of each is its heading.
 * @param {{last: Array, isShown: boolean}} more A row of sums; whether the name is shown.
 */
export function table(name, headings, rows, { last = null, isShown = false } = {}) {
  const classOf = (index) => (headings[index].startsWith("#") ? "number" : null);
  const told = (index, cell) => {
    const text = cell instanceof Node ? cell.textContent : String(cell ?? "");
    const isLong = headings[index].startsWith("~") && text.length >= PROSE_SIZE;
    return isLong ? h("span", { class: "prose" }, cell) : (cell ?? "-");
  };
  const row = (cells) =>
    h(
      "tr",
      {},
      cells.map((cell, index) =>
        index === 0
          ? h("th", { scope: "row", class: classOf(0) }, cell ?? "-")
          : h("td", { class: classOf(index) }, told(index, cell)),
      ),
    );
  const head = h(
    "tr",
    {},
    headings.map((heading, index) =>
      h("th", { scope: "col", class: classOf(index) }, heading.replace(/^[#~]/, "")),
    ),
  );
  const drawn = h(
    "table",
    {},
    h("caption", { class: isShown ? null : "unseen" }, name),
    h("thead", {}, head),
    h("tbody", {}, rows.map(row)),
    last && h("tfoot", {}, row(last)),
  );
  // Whoever has no pointer scrolls it with the arrow keys, so it takes the focus.
  const scrolled = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, drawn);
  if (rows.length <= ROWS_OPEN) return scrolled;
  return h("details", {}, h("summary", {}, `${name} (${rows.length})`), scrolled);
}

/** A line that is louder than others, by its colour and by its mark. */
export function loud(level, text) {
  return level ? h("span", { class: level }, text) : text;
}

export const note = (text) => h("p", { class: "dim" }, text);
