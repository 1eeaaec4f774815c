/** A question before what cannot be taken back. */

import { byId, h, show } from "./dom.js";

/**
 * Ask, and return whether the answer is yes; Escape is no.
 * @param {{title: string, told: Array, yes: string, no: string}} question `told` are paragraphs.
 * @returns {Promise<boolean>}
 */
export function confirmed({ title, told, yes, no }) {
  const dialog = byId("question");
  show(
    dialog,
    h("h2", { id: "question-title" }, title),
    told.map((paragraph) => h("p", {}, paragraph)),
    h(
      "div",
      { class: "buttons" },
      h("button", { type: "button", class: "quiet", onclick: () => dialog.close("no") }, no),
      h("button", { type: "button", onclick: () => dialog.close("yes") }, yes),
    ),
  );
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
