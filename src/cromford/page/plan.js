/** What a factory would cost, before it exists: as a table, and as a plot over its lifetime. */

import { get, getPicture, withQuery } from "./api.js";
import { byId, h, show, showPicture } from "./dom.js";
import { onSubmit } from "./form.js";
import { blocks, counted, days, fixed, general, inDays, number, sat } from "./format.js";
import { facts, note, table } from "./panel.js";
import { onSession, session } from "./session.js";

const MSAT_PER_SAT = 1000;
const BLOCKS_PER_DAY = 144;
const SHARE_SHOWN = 0.01; // Of a block; less is told as less.

export function planPanel() {
  onSession(() => {
    if (session() === null) byId("plan-made").hidden = true;
  });
  onSubmit("plan-form", async (form) => {
    const asked = Object.fromEntries(
      [...new FormData(form)].map(([name, text]) => [name, withoutThousands(text.trim())]),
    );
    const plan = await get(withQuery("/v1/plan", asked));
    const picture = await getPicture(withQuery("/v1/plan/picture", asked));
    byId("plan-made").hidden = false;
    showPicture(byId("plan-picture"), picture);
    show(byId("plan-body"), draw(plan));
    byId("plan-made").focus();
  });
}

/** A number without what parts its thousands; `1,5` parts none, and is left to be refused. */
function withoutThousands(text) {
  return /^\d{1,3}(,\d{3})+(\.\d*)?$/.test(text) ? text.replaceAll(",", "") : text;
}

function draw(plan) {
  const { asked } = plan;
  return [
    facts([...factoryRows(plan), ...leavingRows(plan)]),
    monthTable(plan),
    note(
      `sat per client and month, at ${general(asked.feerate_sat_per_vb)} sat/vB, ` +
        `${fixed(asked.capital_percent_per_year, 2)} % a year for capital, ` +
        `${general(asked.loss_percent_per_year)} % of clients lost a year`,
    ),
    h(
      "ul",
      {},
      verdicts(plan).map((verdict) => h("li", {}, verdict)),
    ),
    choiceTable(plan.choices),
    note("leaving: in how many blocks; a month: what a client costs; * chosen"),
  ];
}

function factoryRows({ asked, shape, times, capital, factory }) {
  const levels = levelsText(shape.inner_kinds, shape.inner_arities);
  const tree = levels ? `${counted(shape.n_leaves, "leaf", "leaves")} under ${levels}` : "one leaf";
  const burnt = capital.tree_fees_sat + capital.anchors_sat;
  const life = `expiry after ${blocks(times.life_blocks)} (${days(times.life_blocks)})`;
  const there = `that all are there to close it: ${general(factory.all_there_percent)} %`;
  const published = counted(shape.n_transactions, "transaction");
  return [
    ["factory", `${counted(asked.n_clients, "client")}: ${tree}`],
    ["on chain", `${published} wait, none is published`],
    ["life", `${blocks(factory.active_blocks)} active, ${life}`],
    ["capital", `${sat(capital.funding_amount_sat)}, of it ${sat(burnt)} for leaving`],
    ["locked", `${blocks(factory.locked_blocks)} as expected; ${there}`],
    ["a payment locks", `${blocks(times.lock_blocks)} at the most`],
  ];
}

function leavingRows({ times, one_leaves: one, all_leave: all }) {
  const wait = `${blocks(times.exit_blocks)} (${days(times.exit_blocks)})`;
  const coin = one.coin_sat ? `, a coin of ${sat(one.coin_sat)}` : "";
  return [
    ["leaving takes", `${wait}, of them ${number(times.exit_delay_blocks)} of delays`],
    ["one leaves", wayOut(one) + coin],
    ["all leave", `${wayOut(all)}; ${shareOfBlocks(all)}`],
  ];
}

function wayOut(way) {
  const children = way.n_children ? ` and ${counted(way.n_children, "child", "children")}` : "";
  return (
    `${counted(way.n_transactions, "transaction")}${children}, ` +
    `${number(way.total_vsize)} vB, ${sat(way.total_fee_sat)}`
  );
}

function shareOfBlocks(way) {
  if (way.n_blocks < SHARE_SHOWN) return `less than ${100 * SHARE_SHOWN} % of a block`;
  if (way.n_blocks < 1) return `${fixed(100 * way.n_blocks, 0)} % of a block`;
  return `${fixed(way.n_blocks, 1)} blocks`;
}

function monthTable({ asked, factory, best, channel_as_long: asLong, channel_kept: kept }) {
  const row = (name, keptBlocks, month) => [
    name,
    keptBlocks === null ? "-" : fixed(keptBlocks / BLOCKS_PER_DAY, 0),
    fixed(month.vsize, 1),
    ...["fee_msat", "capital_msat", "cost_msat"].map((field) =>
      fixed(month[field] / MSAT_PER_SAT, 1),
    ),
  ];
  return table(
    "What a client costs in a month, in sat",
    ["life", "#days", "#vB", "#fees", "#capital", "#in all"],
    [
      row("factory", asked.active_blocks, factory),
      row("factory at best", best.active_blocks, best),
      row("channel as long", asked.active_blocks, asLong),
      row("channel kept", null, kept),
    ],
    { isShown: true },
  );
}

function verdicts({ best, channel_as_long: asLong, channel_kept: kept }) {
  let least = `best life: ${blocks(best.active_blocks)} active (${days(best.active_blocks)})`;
  if (best.is_longest) least += ", the longest that clients sign";
  else if (best.is_shortest) least += ", the shortest that clients sign";
  return [
    least,
    `beside a plain channel for as long: ${fromWhere(asLong)}`,
    `beside one that is kept until the client is lost: ${fromWhere(kept)}`,
  ];
}

function fromWhere(channel) {
  const feerate = channel.factory_is_less_from_sat_per_vb;
  if (feerate === null) return "never less";
  return feerate === 0 ? "less at any feerate" : `less from ${general(feerate)} sat/vB on`;
}

/** The levels above the leaves in short: `static 6, 6` where all are of one kind. */
function levelsText(kinds, arities) {
  if (new Set(kinds).size === 1) return `${kinds[0]} ${arities.join(", ")}`;
  return kinds.map((kind, index) => `${kind} ${arities[index]}`).join(", ");
}

function choiceTable(choices) {
  return table(
    "Shapes of the tree",
    ["shape", "~levels", "#leaving", "#branch", "#tree", "#a month", "#best life"],
    choices.map((choice) => {
      const name = choice.is_chosen ? `${choice.choice} *` : choice.choice;
      if (choice.refusal !== null) return [name, choice.refusal, "", "", "", "", ""];
      return [
        name,
        levelsText(choice.inner_kinds, choice.inner_arities) || "none",
        number(choice.exit_blocks),
        `${number(choice.branch_vsize)} vB`,
        `${number(choice.tree_vsize)} vB`,
        `${fixed(choice.cost_msat / MSAT_PER_SAT, 0)} sat`,
        inDays(choice.best_active_blocks),
      ];
    }),
    { isShown: true },
  );
}
