/** An invoice: made, shown as text and as a code for cameras, and paid before one's eyes. */

import { getPicture, post, withQuery } from "./api.js";
import { announce, byId, h, show, showPicture } from "./dom.js";
import { onSubmit, typedMsat } from "./form.js";
import { msat, time } from "./format.js";
import { needsScope } from "./needs.js";
import { facts, note } from "./panel.js";
import { onSession, session } from "./session.js";

const ID_BYTES = 16;

let shown = null; // The invoice that is shown.
let asked = null; // {id, what}: what was asked for and not answered: asked again, it is one invoice.

export function invoicePanel(live) {
  needsScope("invoice-form", "receive", "make invoices");
  live.add("invoiced", () => shown && `/v1/invoices/${shown.payment_hash}`);
  live.watch(["invoiced"], ({ value }) => value !== undefined && showStatus(value));
  onSession(() => session() === null && forget());
  onSubmit("invoice-form", async (form) => {
    const wanted = {
      amount_msat: typedMsat(form, "amount_msat"),
      description: form.elements.description.value,
      label: form.elements.label.value,
    };
    const made = await post("/v1/invoices", { ...wanted, external_id: idOf(wanted) });
    asked = null;
    shown = made;
    live.refresh("invoiced");
    await showInvoice(made);
  });
  byId("invoice-copy").onclick = copy;
}

/** What the daemon knows an invoice by; the same until it has said that it made it. */
function idOf(wanted) {
  const what = JSON.stringify(wanted);
  if (asked?.what !== what) {
    const drawn = crypto.getRandomValues(new Uint8Array(ID_BYTES));
    const hex = [...drawn].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    asked = { id: `page-${hex}`, what };
  }
  return asked.id;
}

function forget() {
  shown = null;
  asked = null;
  byId("invoice-made").hidden = true;
  byId("invoice-text").value = "";
  showPicture(byId("invoice-qr"), "");
}

async function showInvoice(made) {
  byId("invoice-made").hidden = false;
  byId("invoice-text").value = made.invoice;
  show(byId("invoice-copied"));
  showStatus(made);
  const isMore = made.amount_msat > made.receivable_msat;
  show(
    byId("invoice-facts"),
    facts([
      ["amount", msat(made.amount_msat)],
      ["description", made.description || "none"],
      ["label", made.label || null],
      ["expires", time(made.expires_at)],
    ]),
    isMore &&
      note(
        `Your channel can receive ${msat(made.receivable_msat)} now, which is less. A payment that ` +
          "is larger waits at the LSP for half a minute for more room.",
      ),
  );
  showPicture(byId("invoice-qr"), "");
  const picture = await getPicture(withQuery("/v1/qr", { text: made.invoice }));
  if (shown?.payment_hash === made.payment_hash) showPicture(byId("invoice-qr"), picture);
  byId("invoice-copy").focus();
}

function showStatus(invoice) {
  if (shown?.payment_hash !== invoice.payment_hash) return;
  const place = byId("invoice-status");
  const told = {
    open: "Not paid yet.",
    paid: `Paid: ${msat(invoice.received_msat)}`,
    expired: "Expired; it was not paid.",
  }[invoice.status];
  if (place.textContent !== told) show(place, told);
  place.dataset.status = invoice.status;
}

async function copy() {
  const field = byId("invoice-text");
  try {
    await navigator.clipboard.writeText(field.value);
    show(byId("invoice-copied"), "Copied.");
  } catch {
    field.focus();
    field.select(); // Beyond localhost and without TLS a browser lets no page copy.
    announce("Selected: copy it with your keyboard.");
    show(byId("invoice-copied"), "Selected: copy it with your keyboard.");
  }
}
