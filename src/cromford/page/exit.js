/** Leaving alone: what it takes, how far it is, and to begin it or let it rest. */

import { post } from "./api.js";
import { announce, byId, h, show } from "./dom.js";
import { confirmed } from "./confirm.js";
import { blocks, counted, days, fixed, general, id, number, sat, short, word } from "./format.js";
import { needsScope } from "./needs.js";
import { ofPicked } from "./own_factory.js";
import { facts, note, panel, showProblem, table } from "./panel.js";
import { picked } from "./picked.js";

const MARKS = { confirmed: "✓", publish_now: "▶", wait: "…", later: "○", lost: "✗" };

let plan = null;
let progress = null;

export function exitPanel(live) {
  const path = (wanted) => (hasBranch(live.value("factories")) ? ofPicked(live, wanted) : null);
  live.add("exit_plan", () => path("/v1/exit/plan"));
  live.add("exit_status", () => path("/v1/exit"));
  needsScope("exit-buttons", "operate", "leave");
  panel("exit", live, ["exit_plan", "exit_status"], draw, { without: "No factory to leave." });
  live.watch(["exit_plan", "exit_status"], (planned, status) => {
    plan = planned.value ?? null;
    progress = status.value ?? null;
    // Nothing is begun that cannot be told of first.
    const isThere = plan !== null && progress !== null && !progress.over;
    byId("exit-start").hidden = !isThere || (progress.exiting && !progress.paused);
    byId("exit-pause").hidden = !(isThere && progress.exiting && !progress.paused);
    show(byId("exit-start"), progress?.exiting ? "Go on leaving…" : "Leave…");
  });
  const act = (button, ask, path, told) => {
    byId(button).onclick = async () => {
      const factoryId = await agreed(ask);
      if (factoryId === null) return;
      try {
        const answer = await post(path, { factory_id: factoryId });
        showProblem(byId("exit-problem"), null);
        announce(told(answer));
      } catch (error) {
        showProblem(byId("exit-problem"), error);
      }
      live.refresh("exit_plan");
      live.refresh("exit_status");
    };
  };
  act("exit-start", startQuestion, "/v1/exit", (answer) => `Leaving; next: ${answer.next}`);
  act("exit-pause", pauseQuestion, "/v1/exit/pause", () => "The exit rests.");
}

/** Ask until what is agreed to is what holds by then; return of which factory, null for no. */
async function agreed(ask) {
  let told = null;
  while (plan !== null) {
    const [question, factoryId] = [ask(), plan.factory_id];
    if (JSON.stringify(question) === told) return factoryId;
    const isNew = told === null;
    told = JSON.stringify(question);
    const changed = isNew ? [] : ["It has changed since you were asked:"];
    if (!(await confirmed({ ...question, told: [...changed, ...question.told] }))) return null;
  }
  return null;
}

/** Whether there is a way out of the factory that was picked: once it was built. */
function hasBranch(answer) {
  const factory = picked(answer);
  return factory !== null && factory.stage === "complete" && !factory.aborted;
}

function startQuestion() {
  const go = counted(plan.n_transactions, "transaction goes", "transactions go");
  const brings = plan.channel === null ? null : plan.channel.exit_sat;
  return {
    title: `Leave factory ${short(plan.factory_id)} alone?`,
    told: [
      `An exit cannot be taken back: your channel takes no payment any more, and ${go} on chain. ` +
        "The other clients keep their channels and go on paying, but leave by what is on chain then.",
      `It takes up to ${blocks(plan.exit_blocks)}, ${days(plan.exit_blocks)}.`,
      `Today, at ${general(plan.fees_today.feerate_sat_per_vb)} sat/vB, it costs ${feesToday(plan)}.`,
      brings === null ? "What arrives cannot be said." : `${sat(brings)} reach your wallet.`,
    ],
    yes: "Leave",
    no: "Stay",
  };
}

function pauseQuestion() {
  return {
    title: "Let the exit rest?",
    told: [
      "What is on chain stays there, and your channel stays closed. The daemon goes on by itself " +
        "when the exit deadline comes, when an HTLC could be lost, and for a state whose clock runs.",
    ],
    yes: "Let it rest",
    no: "Go on",
  };
}

function draw(planned, status) {
  const all = [...planned.steps, ...planned.due.filter((due) => !isStep(planned, due))];
  return [
    facts([
      ["exit", stateOf(status)],
      ["next", planned.next],
      ["time to allow", planned.exit_blocks ? timeToAllow(planned) : null],
      [`today, ${general(planned.fees_today.feerate_sat_per_vb)} sat/vB`, feesToday(planned)],
      ["reaches your wallet", planned.channel && sat(planned.channel.exit_sat)],
    ]),
    stepTable(planned, all),
    status.exiting && !status.over ? underWay(status) : null,
    h("details", {}, h("summary", {}, "All of what it takes"), details(planned)),
    planned.channel === null && planned.exit_blocks
      ? note("What follows out of the channel cannot be said now.")
      : null,
  ];
}

const timeToAllow = (planned) => `${blocks(planned.exit_blocks)}, ${days(planned.exit_blocks)}`;

const isStep = (planned, due) => planned.steps.some((step) => step.txid === due.txid);

function stepTable(planned, steps) {
  return table(
    "Transactions of the way out",
    ["transaction", "status", "#size", "#fee", "#delay", "txid"],
    [
      ...steps.map((step) => [
        step.name,
        standing(step),
        step.vsize === undefined ? "-" : `${number(step.vsize)} vB`,
        sat(step.fee_sat),
        step.delay_blocks === undefined ? "-" : blocks(step.delay_blocks),
        id(step.txid),
      ]),
      ...(planned.channel?.steps ?? []).map((step) => [
        step.name,
        `${MARKS.later} then`,
        `${number(step.vsize)} vB`,
        sat(step.fee_sat),
        blocks(step.delay_blocks),
        "-",
      ]),
    ],
  );
}

function standing(step) {
  const at = step.height === null ? "" : ` (height ${number(step.height)})`;
  return `${MARKS[step.status] ?? "•"} ${word(step.status)}${at}`;
}

function stateOf(status) {
  if (status.over) return "over";
  if (!status.exiting) return "not begun";
  return status.paused ? "paused" : "under way";
}

function underWay(status) {
  const end = status.end_height;
  return facts([
    ...status.waiting.map((one) => ["waits", waiting(one)]),
    ...status.refused.map((one) => ["refused", `${one.name}: ${one.reason}`]),
    ["at stake", sat(status.stake_sat)],
    ["on chain by", end === null ? "no hurry" : `height ${number(end)}`],
    ["children cost", `${sat(status.children_cost_sat)} so far`],
    ["may still cost", sat(status.budget_left_sat)],
    ["coins set aside", String(status.coins.length)],
  ]);
}

function waiting(one) {
  const wanted = `${fixed(one.wanted_sat_per_vb, 2)} sat/vB wanted`;
  if (!one.waits) return `${one.name}: not in the node's mempool, ${wanted}`;
  const paid = `${one.name}: ${fixed(one.package_sat_per_vb, 2)} sat/vB, ${wanted}`;
  if (one.child_txid === null) return paid;
  const whose = one.child_is_ours ? "our child" : "somebody's child";
  return `${paid}, by ${whose} ${short(one.child_txid)} of ${sat(one.child_fee_sat)}`;
}

function details(planned) {
  const { superseded } = planned;
  const size = `${number(planned.total_vsize)} vB`;
  return facts([
    ["in all", `${counted(planned.n_transactions, "transaction")}, ${size}`],
    ["fees", `${sat(planned.total_fee_sat)} agreed`],
    ...planned.fees_at.map((fee) => [`at ${general(fee.feerate_sat_per_vb)} sat/vB`, feesAt(fee)]),
    ["without a coin", `up to ${fixed(planned.without_coins_sat_per_vb, 2)} sat/vB`],
    ["delays", blocks(planned.total_delay_blocks)],
    ["arrives in the channel", `${sat(planned.channel_sat)}, yours and the LSP's`],
    ...(planned.channel?.left_behind ?? []).map((left) => [
      "not worth its fee",
      `${left.name}, ${sat(left.amount_sat)}`,
    ]),
    ["replaced, and on chain", superseded?.state],
    ...(superseded?.poisons ?? []).map((one) => [
      "poison",
      `${one.name}, ${standing(one)}: pays you ${sat(one.pays_sat)}`,
    ]),
    ["still on its way", superseded && sat(superseded.arriving_sat)],
    ["needs a coin of yours", planned.needs_coin ? "yes, to pay the fees" : "no"],
  ]);
}

function feesToday(planned) {
  const { fees_today: today } = planned;
  const lacks = today.short_sat ? `; your wallet lacks ${sat(today.short_sat)} for them` : "";
  return feesAt(today) + lacks;
}

function feesAt(fee) {
  if (!fee.n_coins) return `${sat(fee.fee_sat)}, as agreed`;
  const coins = fee.n_coins === 1 ? "a coin" : `${fee.n_coins} coins, in all`;
  return (
    `${sat(fee.fee_sat)}, of which children ${sat(fee.children_sat)}, ` +
    `out of ${coins} of ${sat(fee.coin_sat)}`
  );
}
