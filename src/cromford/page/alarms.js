/** What is to be looked after, first of all: whatever the daemon warns of. */

import { byId, h, show } from "./dom.js";
import { counted, localTime, short } from "./format.js";
import { UNKNOWN, note, showDrawn } from "./panel.js";
import { ending, isOver, refused, timeLeft } from "./words.js";

const TWO_COPIES = "does a second copy of the data directory run? Stop one of them";

/** Warnings of any daemon's status, as `{name, told, isBad}`. */
function ofDaemon(status) {
  const { chain } = status;
  const alarms = [];
  if (!chain.fresh) {
    const since = chain.stale_since === null ? "" : ` since ${localTime(chain.stale_since)}`;
    alarms.push(bad("The chain", `STALE${since}: ${chain.stale_reason}`));
  }
  for (const failed of status.failed_decisions) alarms.push(bad("BUG MET", bug(failed)));
  for (const one of status.refused) alarms.push(bad("Refused by the node", refused(one)));
  for (const warning of status.backup_warnings) alarms.push(warn("The store", warning));
  for (const factory of status.dying) {
    const told = ending(factory);
    if (told !== null) alarms.push(warn("Dying", told));
  }
  return alarms;
}

const bad = (name, told) => ({ name, told, isBad: true });
const warn = (name, told) => ({ name, told, isBad: false });

function bug(failed) {
  const who = failed.node_id === null ? "a request" : `peer ${short(failed.node_id)}`;
  const alarm = failed.alarm ? "a second signature was PREVENTED; " : "";
  return (
    `${alarm}${failed.error} at ${failed.place} about ${failed.event} of ${who} ` +
    `(${counted(failed.count, "time")}, last ${localTime(failed.last_time)}); ` +
    "nothing was remembered; please report the log's traceback"
  );
}

/** An LSP's, with those of its factories. */
export function lspAlarms(status, factories) {
  const alarms = ofDaemon(status);
  for (const stopped of status.stopped) {
    const told = `factory ${short(stopped.factory_id)}: ${stopped.error}; tried again at each block`;
    alarms.push(bad("STOPPED BY A BUG", told));
  }
  for (const nodeId of status.contested) {
    alarms.push(warn("In use twice", `${nodeId} keeps displacing itself; ${TWO_COPIES}`));
  }
  if (status.handed_over_keys.problem) {
    const told = `${status.handed_over_keys.problem}; whose are gone is asked again, or signs itself`;
    alarms.push(bad("KEYS DAMAGED", told));
  }
  if (status.build_dropped) alarms.push(warn("Last build dropped", status.build_dropped));
  for (const factory of factories.factories) {
    alarms.push(...ofFactory(factory));
    for (const [client, why] of isOver(factory) ? [] : Object.entries(factory.channels_failed)) {
      if (factory.leaving.includes(Number(client))) continue; // It is on its way, or was.
      const name = `Factory ${short(factory.factory_id)}`;
      alarms.push(warn(name, `client ${client}'s channel failed: ${why}`));
    }
  }
  return alarms;
}

/** A client's, with those of its factories. */
export function clientAlarms(status, factories) {
  const alarms = ofDaemon(status);
  if (!status.connected) alarms.push(warn("The LSP", "not connected; it is tried again by itself"));
  if (status.connections_are_short) {
    alarms.push(warn("Connections", `end soon after they begin; ${TWO_COPIES}`));
  }
  if (status.refusal) alarms.push(warn("Refused by the LSP", status.refusal));
  for (const factory of factories.factories) {
    alarms.push(...ofFactory(factory));
    // Whoever leaves or closes ended the channel; an alarm is what was not wished for, and is not over.
    const isWished = factory.is_exiting || factory.status === "closed";
    if (factory.channel_failed && !isWished && factory.look_blocks !== null) {
      alarms.push(bad(`Channel ${short(factory.factory_id)}`, `failed: ${factory.channel_failed}`));
    }
  }
  return alarms;
}

function ofFactory(factory) {
  const { text, level } = timeLeft(factory);
  const name = `Factory ${short(factory.factory_id)}`;
  const alarms = level ? [{ name, told: text, isBad: level === "bad" }] : [];
  for (const one of factory.refused) alarms.push(bad("Refused by the node", refused(one)));
  if (factory.too_late) alarms.push(bad(name, "its funding is too late: give it up"));
  return alarms;
}

/** Draw alarms, the bad ones first; without any, that all is well. */
export function alarmsPanel(live, alarmsOf) {
  const place = byId("alarms-list");
  live.watch(["status", "factories"], (status, factories) => {
    if (status.value === undefined || factories.value === undefined) {
      show(place, note(UNKNOWN));
      return;
    }
    showDrawn(place, () => drawn(alarmsOf(status.value, factories.value)));
  });
}

function drawn(told) {
  // Status and factories may tell of one thing.
  const alarms = [...new Map(told.map((alarm) => [alarm.name + alarm.told, alarm])).values()];
  alarms.sort((one, other) => Number(other.isBad) - Number(one.isBad));
  document.title = `${alarms.length ? `(${alarms.length}) ` : ""}${document.body.dataset.title}`;
  return alarms.length ? list(alarms) : h("p", { class: "well" }, "Nothing to look after.");
}

function list(alarms) {
  return h(
    "ul",
    { class: "alarms" },
    alarms.map(({ name, told, isBad }) =>
      h("li", { class: isBad ? "bad" : "soon" }, h("strong", {}, `${name}: `), told),
    ),
  );
}
