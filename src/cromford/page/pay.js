/**
 * Paying: what an invoice asks for is shown, then it is paid, once, however often it is asked for.
 *
 * What became of it is never taken from a request that failed: the daemon is asked. A payment whose
 * answer did not come in time is under way.
 */

import { Refused, get, post } from "./api.js";
import { byId, h, show } from "./dom.js";
import { Wrong, onSubmit } from "./form.js";
import { id, localTime, msat, number, time } from "./format.js";
import { needsScope } from "./needs.js";
import { facts, showProblem } from "./panel.js";
import { onSession, session } from "./session.js";

const WAIT_SECONDS = 20;
const PAYING = "cromford-paying"; // A page that is loaded again goes on showing it.

let planned = null; // {invoice, label, plan}: what is asked about.
let isPaying = false;

export function payPanel(live) {
  needsScope("pay-form", "spend", "pay");
  live.add("paying", () => hash() && `/v1/payments/${hash()}`);
  live.watch(["paying"], ({ value, error }) => {
    if (error?.code === "payment_not_found" && !isPaying) showNotBegun();
    else showOutcome(value);
  });
  onSession(() => session() === null && forget());
  onSubmit("pay-form", async (form) => {
    forgetPlan();
    const invoice = withoutBlanks(form.elements.invoice.value);
    const label = form.elements.label.value;
    if (!invoice) throw new Wrong("invoice", "expected an invoice, received nothing");
    const plan = await post("/v1/payments", { invoice, label, dry_run: true });
    planned = { invoice, label, plan };
    showPlan(plan);
  });
  byId("pay-form").oninput = forgetPlan; // Nothing is paid but what is shown.
  byId("pay-yes").onclick = () => pay(live);
  byId("pay-no").onclick = () => {
    forgetPlan();
    byId("pay-invoice").focus();
  };
}

/** An invoice as it was pasted, in one piece: lines may have been broken on its way. */
function withoutBlanks(text) {
  return text.replace(/\s+/g, "").replace(/^lightning:/i, "");
}

const hash = () => sessionStorage.getItem(PAYING);

function forget() {
  forgetPlan();
  byId("pay-outcome").hidden = true;
}

function forgetPlan() {
  planned = null;
  byId("pay-plan").hidden = true;
  showProblem(byId("pay-problem"), null);
}

function showPlan(plan) {
  byId("pay-plan").hidden = false;
  const isNew = plan.status === "planned";
  const heading = isNew ? "It asks for" : "It is known here";
  show(byId("pay-plan-heading"), heading);
  show(
    byId("pay-plan-facts"),
    facts([
      ["amount", msat(plan.amount_msat)],
      ["fee", msat(plan.fee_msat)],
      ["in all", msat(plan.total_msat)],
      ["to", h("code", { class: "long" }, plan.payee)],
      ["for", plan.description || "no description"],
      ["label", plan.label || null],
      ["from factory", id(plan.factory_id)],
      ["invoice expires", isNew ? time(plan.expires_at) : null],
      ["back at height", isNew ? `${number(plan.htlc_expiry_height)} at the latest, if it fails` : null],
      ["status", isNew ? null : statusText(plan)],
    ]),
  );
  const yes = byId("pay-yes");
  yes.hidden = !isNew;
  show(yes, `Pay ${msat(plan.total_msat)}`);
  (isNew ? yes : byId("pay-no")).focus();
}

async function pay(live) {
  if (isPaying || planned === null) return;
  const { invoice, label, plan } = planned;
  isPaying = true;
  byId("pay-yes").setAttribute("aria-disabled", "true");
  sessionStorage.setItem(PAYING, plan.payment_hash);
  showUnderWay(plan);
  try {
    // The LSP may ask for more by now: no more is paid than what was shown.
    const agreed = { fee_max_msat: plan.fee_msat, wait_seconds: WAIT_SECONDS };
    const paid = await post("/v1/payments", { invoice, label, ...agreed });
    showOutcome({ payments: [paid] });
    finish(invoice);
  } catch (error) {
    if (error instanceof Refused) await refusedOrNot(error, { invoice, plan });
    // Else nobody knows: it is shown as under way until the daemon can be asked.
    else finish(invoice);
  } finally {
    isPaying = false;
    byId("pay-yes").removeAttribute("aria-disabled");
    live.refresh("paying");
    live.refresh("payments");
  }
}

/** What was refused may be on its way all the same, by an earlier request. */
async function refusedOrNot(error, { invoice, plan }) {
  try {
    showOutcome(await get(`/v1/payments/${plan.payment_hash}`));
    finish(invoice);
  } catch (unknown) {
    const isWaiting = error.code === "payment_waits";
    if (isWaiting || unknown.code !== "payment_not_found") {
      showUnderWay(plan, isWaiting ? error.message : "");
      finish(invoice);
      return;
    }
    sessionStorage.removeItem(PAYING);
    byId("pay-outcome").hidden = true;
    showProblem(byId("pay-problem"), error);
  }
}

function finish(invoice) {
  const form = byId("pay-form");
  // Another invoice may have been typed meanwhile: then that goes on.
  if (withoutBlanks(form.elements.invoice.value) !== invoice) return;
  forgetPlan();
  form.reset();
  byId("pay-outcome").focus();
}

function showUnderWay(plan, why = "") {
  byId("pay-outcome").hidden = false;
  const place = byId("pay-status");
  place.dataset.status = "pending";
  show(place, `Under way: ${msat(plan.total_msat)}. ${why}`.trim());
  show(byId("pay-facts"), facts([["payment hash", h("code", { class: "long" }, plan.payment_hash)]]));
}

/** The request was lost on its way: nothing was paid, and it may be tried again. */
function showNotBegun() {
  const place = byId("pay-status");
  if (place.dataset.status !== "pending") return;
  place.dataset.status = "failed";
  show(place, "Not begun: the daemon knows of no such payment. Nothing was paid; try again.");
}

function showOutcome(found) {
  const one = found?.payments.find((payment) => payment.direction !== "in");
  if (one === undefined || one.payment_hash !== hash()) return;
  byId("pay-outcome").hidden = false;
  const place = byId("pay-status");
  place.dataset.status = one.status;
  const told = statusText(one);
  if (place.textContent !== told) show(place, told);
  show(
    byId("pay-facts"),
    facts([
      ["amount", msat(one.amount_msat)],
      ["fee", msat(one.fee_msat)],
      ["in all", msat(one.total_msat)],
      ["to", h("code", { class: "long" }, one.payee)],
      ["for", one.description || "no description"],
      ["begun", time(one.created_at)],
      ["payment hash", h("code", { class: "long" }, one.payment_hash)],
      ["proof (preimage)", one.preimage ? h("code", { class: "long" }, one.preimage) : null],
      ["waits", one.obstacle || null],
    ]),
  );
}

/** How a payment stands; one that may be lost is neither paid nor failed. */
export function statusText(one) {
  if (one.status === "unknown") {
    return `Unknown: ${msat(one.may_lose_msat)} may be lost: ${one.obstacle}`;
  }
  if (one.may_lose_msat) {
    return (
      `Unknown: up to ${msat(one.may_lose_msat)} may be lost, until the chain says otherwise ` +
      `after height ${number(one.expiry_height)}`
    );
  }
  return {
    pending: `Under way: ${msat(one.total_msat)}`,
    paid: `Paid: ${msat(one.total_msat)}, ${localTime(one.settled_at)}`,
    failed: `Failed: ${one.failure ?? "it came back"}. Nothing was paid`,
  }[one.status];
}
