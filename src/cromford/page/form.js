/** Forms: they keep what was typed, and say beside a field what is wrong with it. */

import { Refused, Unreachable } from "./api.js";
import { byId, h, show } from "./dom.js";
import { showProblem } from "./panel.js";

const AMOUNT = /^(\d{1,3}(?:,\d{3}){1,6}|\d{1,20})(\.\d{1,11})? ?(sat|msat|btc|)$/i;
const PER_UNIT = { "": 1_000n, sat: 1_000n, msat: 1n, btc: 100_000_000_000n };
const PARTS_OF_BTC = 11; // A thousandth of a satoshi is the smallest part.
export const AMOUNT_EXPECTED = "a whole number of sat, as in 10,000, or 1500msat, or 0.001btc";

/** An amount as people type it, as the command line reads it: in msat; null where it is none. */
export function msatOf(text) {
  const found = AMOUNT.exec(text.trim());
  if (found === null) return null;
  const [, whole, part = "", unit] = found;
  const per = PER_UNIT[unit.toLowerCase()];
  if (part && unit.toLowerCase() !== "btc") return null;
  const exact = BigInt(whole.replaceAll(",", "")) * per;
  const fraction = part ? BigInt(part.slice(1).padEnd(PARTS_OF_BTC, "0")) : 0n;
  const amount = exact + fraction;
  return amount <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(amount) : null;
}

/** A field that is wrong: its name in the form, and what to say. */
export class Wrong extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

/** An amount that was typed in a field, in msat. */
export function typedMsat(form, field) {
  const text = form.elements[field].value;
  const amount = msatOf(text);
  if (amount === null || amount === 0) {
    throw new Wrong(field, `expected ${AMOUNT_EXPECTED}, received ${text ? `'${text}'` : "nothing"}`);
  }
  return amount;
}

/**
 * Let a form do something, once at a time.
 * @param {string} id Of the form. An error beside a field stands in `#FORM-FIELD-error`.
 * @param {function(HTMLFormElement)} act What it does; may throw `Wrong`, or what the API refuses.
 */
export function onSubmit(id, act) {
  const form = byId(id);
  const problem = h("p", { class: "problem", role: "alert" });
  form.append(problem);
  form.noValidate = true; // Ours say what was received, too, and are read aloud.
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (form.getAttribute("aria-busy") === "true") return;
    clearErrors(form, problem);
    setBusy(form, true);
    try {
      await act(form);
    } catch (error) {
      showError(form, problem, error);
      if (![Wrong, Refused, Unreachable].some((kind) => error instanceof kind)) throw error;
    } finally {
      setBusy(form, false);
    }
  };
}

/** While a form is at work it takes no second press; its fields keep the focus and what is in them. */
function setBusy(form, isBusy) {
  form.setAttribute("aria-busy", String(isBusy));
  for (const button of form.querySelectorAll("button[type=submit]")) {
    button.setAttribute("aria-disabled", String(isBusy));
  }
}

function clearErrors(form, problem) {
  show(problem);
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    show(byId(`${form.id}-${field.name}-error`));
  }
}

function showError(form, problem, error) {
  const name = error instanceof Error && (error.field ?? error.param);
  const field = name ? form.querySelector(`[name="${CSS.escape(name)}"]`) : null;
  const place = field && document.getElementById(`${form.id}-${field.name}-error`);
  if (place) {
    field.setAttribute("aria-invalid", "true");
    show(place, error.message);
    field.focus();
  } else showProblem(problem, error);
}
