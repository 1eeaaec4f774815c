/** How factories and their money stand, in the words of the command line. */

import { blocks, counted, fixed, msat, number, sat, short } from "./format.js";

const NEAR_BLOCKS = 1008; // Before the exit deadline; from here on it is said louder.
const URGENT_BLOCKS = 144;
const OVER = new Set([
  ...["on_chain", "swept", "closed", "moved_out", "aborted"],
  ...["abandoned", "given_up", "dead", "displaced"],
]);
const LEFT = new Set(["moved_out", "dead", "displaced"]); // Channels nobody has to leave.
const MAY_GROW = new Set(["open", "offline", "stale", "unmarkable", "pending"]); // By a purchase.
const GOES_ON = new Set(["open", "offline"]); // A channel whose neighbours leave.
const MILLION = 1_000_000;
const RESTORED = "marked: restored from a backup, it can only be closed";
const ADVANCE_STEPS = {
  agreeing: "is to be agreed on",
  signing: "is to be signed",
  waiting: "waits for its clients to come back",
  protecting: "is signed, and its poisons are to be held",
  rebasing: "is signed, and channels move to it",
};
const OWN_ADVANCE_STEPS = {
  proposed: "your channel is to become quiet",
  agreed: "the others in the leaf are to agree",
  signed: "the LSP is to finish the leaf's next state",
  held: "the LSP is to hand out what protects from the old state",
  rebasing: "your channel moves to the new state",
};

/** Whether a factory has no deadline any more: left, ended, or never to be. */
export const isOver = (factory) => OVER.has(factory.status);

/** The blocks that are left of a factory: `{text, level}`, louder as they run out. */
export function timeLeft(factory) {
  const left = factory.blocks_to_expiry;
  if (factory.aborted || isOver(factory) || left === null || left === undefined) {
    return { text: "-", level: "" };
  }
  if (factory.exit_deadline_height === null) return { text: "does not expire", level: "" };
  if (left <= 0) {
    return { text: `EXPIRED at height ${number(factory.expiry_height)}`, level: "bad" };
  }
  const toDeadline = left - (factory.expiry_height - factory.exit_deadline_height);
  if (toDeadline <= 0) {
    return { text: `EXIT DEADLINE PASSED, expiry in ${blocks(left)}`, level: "bad" };
  }
  const told = `exit within ${blocks(toDeadline)}, expiry in ${blocks(left)}`;
  if (toDeadline <= URGENT_BLOCKS) return { text: `URGENT: ${told}`, level: "bad" };
  if (toDeadline <= NEAR_BLOCKS) return { text: `SOON: ${told}`, level: "soon" };
  return { text: told, level: "" };
}

/** The blocks that are left of a client's channel. */
export function channelTimeLeft(channel) {
  if (LEFT.has(channel.status)) return "-";
  const left = channel.blocks_to_exit_deadline;
  if (left === null) return "does not expire";
  if (left > 0) return `exit within ${blocks(left)}`;
  return `EXIT DEADLINE PASSED${channel.is_worth_an_exit ? "" : ", not worth leaving"}`;
}

/** What is to be said of a factory that dies; null of one that does not, or is over. */
export function ending(factory) {
  const left = factory.blocks_to_next_period;
  const ends = {
    dying: `dies: ${left === null ? "" : blocks(left)} to move out`,
    late: `is past its exit deadline: it expires in ${left === null ? "" : blocks(left)}`,
    expired: "expired",
  }[factory.period];
  const isOver = factory.aborted || !["live", "expired"].includes(factory.status ?? "live");
  if (ends === undefined || isOver) return null;
  const told = `factory ${short(factory.factory_id)} ${ends}`;
  if (factory.moving) return `${told}; ${moving(factory.factory_id, factory.moving)}`;
  const clauses = [told];
  if (factory.n_waiting !== undefined) {
    const { n_clients: clients, n_waiting: waiting, n_elsewhere: elsewhere } = factory;
    clauses.push(
      `of its ${counted(clients, "client")} ${counted(waiting, "waits", "wait")} for the next one ` +
        `and ${counted(elsewhere, "has", "have")} a channel there`,
    );
  }
  return [...clauses, ...(factory.when_dying ?? []).map(stepWhenDying)].join("; ");
}

function stepWhenDying(step) {
  if (step.from_height === null) return step.what;
  const until = step.to_height === null ? "" : ` to ${number(step.to_height)}`;
  return `from height ${number(step.from_height)}${until} ${step.what}`;
}

function moving(factoryId, moves) {
  const to = moves.to_factory_id === null ? "" : ` to factory ${short(moves.to_factory_id)}`;
  const told = {
    moved: `moved ${msat(moves.moved_msat)} from factory ${short(factoryId)}${to}`,
    paying: `moving ${msat(moves.left_msat)} from factory ${short(factoryId)}${to}`,
    waiting: "moves by itself",
    staying: "stays",
    over: "does not move",
  }[moves.status];
  return moves.why ? `${told}: ${moves.why}` : told;
}

/** How deep a factory's funding is. */
export function depth(factory) {
  const { confirmations: deep, min_depth: needed } = factory;
  if (needed !== null && deep >= needed) return `${number(deep)} deep`;
  return `${deep} of ${needed ?? "?"}`;
}

/** How an LSP's factory stands, in one line. */
export function lspStage(factory) {
  if (factory.aborted) return `aborted: ${factory.aborted}`;
  if (factory.too_late) return `${factory.status}, too late: give it up`;
  if (factory.refused?.length) return `${factory.status}, ${refusedInShort(factory)}`;
  if (factory.status === "building") {
    const waits = factory.holdouts.length ? `, waits for ${factory.holdouts.join(", ")}` : "";
    return `${factory.phase}${waits}`;
  }
  if (factory.closing !== null) return `${factory.status}, ${closing(factory.closing)}`;
  if (factory.closed.length) return closed(factory.status, closedInShort(factory.closed.at(-1)));
  const failed = Object.keys(factory.channels_failed).map((client) => `client ${client}'s`);
  return [
    factory.status,
    factory.is_marked ? `, ${RESTORED}` : "",
    failed.length ? `, failed: ${failed.join(", ")} channel` : "",
    ...factory.advances.map((advance) => `, ${advancing(advance)}`),
    leaving(factory),
    factory.moved_out.length ? `, moved out: ${factory.moved_out.join(", ")}` : "",
    sweeping(factory.sweeping),
  ].join("");
}

function refusedInShort(factory) {
  const [refused] = factory.refused;
  return `the node refuses ${refused.name}: ${refused.reason}`;
}

function closed(status, told) {
  return status === "closed" ? told : `${status}, ${told}`; // Or it would be said twice.
}

function leaving(factory) {
  if (!factory.published.length) return "";
  const n = counted(factory.published.length, "transaction");
  const out = factory.leaving.length ? `, clients leaving or out: ${factory.leaving.join(", ")}` : "";
  return `, being left: ${n} of the tree on chain${out}`;
}

function sweeping(outputs) {
  if (!outputs.length) return "";
  const amount = outputs.reduce((sum, output) => sum + BigInt(output.amount_sat), 0n);
  return `, to be swept: ${sat(amount)} in ${counted(outputs.length, "output")}`;
}

/** A close under way: an LSP knows whom it waits for, a client what it is owed. */
export function closing(close) {
  if ("balance_msat" in close) {
    const owed = close.balance_msat;
    const told = owed === null ? "what your store says or more" : msat(owed);
    return `closing together: ${close.phase}, you are owed ${told}`;
  }
  const waits = close.holdouts.map((client) => `client ${client}`).join(", ") || "nobody";
  const soFar = `${close.done.length} of ${close.clients.length}`;
  return `closing ${close.name}: ${close.phase}, ${soFar}; waits for ${waits}`;
}

/** A finished close; `own` is what a client knows of its own. */
export function closedInShort(close, own = null) {
  const deep = close.confirmations;
  const txids = (deep ? [close.txid] : close.txids).map(short).join(" or ");
  const told = `closed together, ${deep ? `${number(deep)} deep` : "in no block yet"}: ${txids}`;
  return own?.close_id === close.close_id ? `${told}; pays you ${sat(own.payout_sat)}` : told;
}

/** An LSP's advance, and whom it waits for. */
export function advancing(advance) {
  const told =
    `leaf ${advance.leaf || "root"}: ${sat(advance.amount_sat)} for client ` +
    `${advance.buyer}, state ${advance.state_index} ${ADVANCE_STEPS[advance.step]}`;
  const waits = advance.holdouts.join(", ");
  return waits ? `${told}; waits for client ${waits}` : told;
}

/** How a client's factory stands, in one line. */
export function clientStage(factory) {
  const { status } = factory;
  if (factory.aborted) return `aborted: ${factory.aborted}`;
  if (status === "building") return `building, ${factory.stage}`;
  if (status === "moved_out") return movedOut(factory.keys_handed_over);
  if (factory.refused.length) return `${status}, ${refusedInShort(factory)}`;
  if (factory.closed.length) {
    return closed(status, closedInShort(factory.closed.at(-1), factory.close));
  }
  if (factory.closing !== null) return `${status}, ${closing(factory.closing)}`;
  if (factory.channel_status === "marked") return `${status}, channel ${RESTORED}: ask your LSP`;
  if (factory.channel_failed) return `${status}, channel failed: ${factory.channel_failed}`;
  if (factory.published.length && GOES_ON.has(factory.channel_status)) {
    const onChain = factory.published.join(", ");
    return `${status}, channel ${factory.channel_status}; somebody leaves: ${onChain} on chain`;
  }
  return status;
}

function movedOut(handedOver) {
  if (handedOver.taken) return "moved out, its keys are with the LSP";
  const { refused } = handedOver;
  return `moved out, keys ${refused ? `not taken: ${refused}` : "sent to the LSP"}`;
}

/** What is on its way through channels. */
export function onItsWay(amounts) {
  const parts = [
    [amounts.sending_msat, "out"],
    [amounts.receiving_msat, "in"],
  ];
  const told = parts.filter(([amount]) => amount).map(([amount, way]) => `${msat(amount)} ${way}`);
  return told.join(", ") || "-";
}

/** How a client's channel stands in its leaf, in lines. */
export function liquidity(channel) {
  const { liquidity: stands, factory_id: factoryId } = channel;
  const name = `channel ${short(factoryId)}`;
  const lines = [];
  if (stands.buying !== null) {
    const told = `${sat(stands.buying.amount_sat)} for ${msat(stands.buying.price_msat)}`;
    const step = stands.advance === null ? "" : `: ${OWN_ADVANCE_STEPS[stands.advance.step]}`;
    lines.push(`${name}: you are buying ${told}${step}`);
  } else if (stands.advance !== null) {
    lines.push(`${name}: a neighbour buys; ${OWN_ADVANCE_STEPS[stands.advance.step]}`);
  }
  if (stands.covered_sat !== null) lines.push(`${name}: ${coverage(stands)}`);
  if (stands.sales_left && MAY_GROW.has(channel.status)) {
    const left = `${sat(stands.lstock_sat)} in ${counted(stands.sales_left, "sale")}`;
    lines.push(`${name}: inbound liquidity for sale: ${left}`);
  }
  return lines;
}

function coverage(stands) {
  let told = `poisons cover ${sat(stands.covered_sat)} of yours`;
  if (stands.beyond_coverage_msat) told += `; ${msat(stands.beyond_coverage_msat)} are BEYOND that`;
  if (stands.htlcs_msat) {
    const exposed = msat(stands.htlcs_beyond_coverage_msat);
    told += `; of ${msat(stands.htlcs_msat)} in payments under way ${exposed} are beyond it`;
  }
  return told;
}

/** What an LSP asks for inbound liquidity. */
export function price(asked) {
  if (!asked.is_for_sale) return "not for sale; `set-price --on` sells it again";
  return (
    `${msat(asked.base_msat)}, ${percent(asked.per_million)} of the amount, and ` +
    `${percent(asked.per_month)} for each 30 days; at least ${sat(asked.min_sat)}`
  );
}

function percent(millionths) {
  return `${Number(((100 * millionths) / MILLION).toPrecision(6))} %`;
}

/** What was sold in all. */
export function sold(sums) {
  const told = `${sat(sums.sold_sat)} for ${msat(sums.sold_for_msat)}`;
  return `${told} in ${counted(sums.n_sold, "sale")}`;
}

/** What a payment is for: what the operator calls it, and what its payer reads. */
export function whatFor(one) {
  if (one.direction !== "move") {
    return [one.label, one.description].filter(Boolean).join(" / ") || "-";
  }
  const to = one.to_factory_id ? ` to factory ${short(one.to_factory_id)}` : "";
  return `from factory ${short(one.factory_id)}${to}`;
}

/** A transaction that the node does not take. */
export function refused(one) {
  return (
    `${one.name} ${short(one.txid)}, ${one.reason} ` +
    `(${counted(one.count, "time")} since height ${number(one.first_height)})`
  );
}

/** A share of something. */
export const share = (part) => `${fixed(100 * part, 0)} %`;
