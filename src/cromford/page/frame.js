/** The page around the panels: signing in and out, and whether what is shown is of now. */

import {
  SIGNED_OUT,
  Refused,
  forgetKey,
  hasKey,
  onKeyElsewhere,
  pageVersion,
  signIn,
  signOut,
  whoAmI,
} from "./api.js";
import { byId, h, show } from "./dom.js";
import { onSubmit } from "./form.js";
import { localTime, number } from "./format.js";
import { Live } from "./live.js";
import { session, setSession } from "./session.js";

const RESUME_MS = 3_000;

const loadedVersion = versionNow();
let live = null;
let resuming = null; // The timer of the next try to go on with a session.
let wasLive = false; // In this sign-in: what came then is shown.

/**
 * Show the page of a role, to whoever is signed in.
 * @param {function(Live)} setUp Adds the answers and the panels; called once.
 */
export async function begin(setUp) {
  live = new Live(showConnection);
  live.add("status", "/v1/status");
  live.watch(["status"], ({ value }) => showStanding(value));
  setUp(live);
  onSubmit("sign-in", async (form) => {
    const token = form.elements.token.value.trim();
    const told = await signIn(token);
    form.reset();
    await enter(told);
    byId("main").focus();
  });
  byId("sign-out").onclick = leave;
  document.addEventListener(SIGNED_OUT, ({ detail }) => close(detail));
  onKeyElsewhere(resume);
  await resume();
}

/** Go on with the session that there is, if there is one. */
async function resume() {
  clearTimeout(resuming);
  if (!hasKey()) {
    close(null);
    return;
  }
  try {
    await enter(await whoAmI());
  } catch (error) {
    if (error instanceof Refused && error.isSignedOut) close(error);
    else {
      showConnection({ state: "lost", since: 0, retryAt: Date.now() + RESUME_MS, why: error });
      resuming = setTimeout(resume, RESUME_MS);
    }
  }
}

/** Open the page, or load the one that belongs to a daemon of another version, or role. */
async function enter(told) {
  const [loaded, now] = [await loadedVersion, await versionNow()];
  if (loaded !== null && now !== null && now !== loaded) location.reload();
  else open(told);
}

/** The version of the page's files; null where that cannot be told. */
async function versionNow() {
  try {
    return await pageVersion();
  } catch {
    return null;
  }
}

function open(told) {
  live.stop();
  wasLive = false;
  setSession(told);
  byId("sign-in-place").hidden = true;
  byId("main").hidden = false;
  byId("sign-out").hidden = false;
  show(byId("who"), `${told.name}, to ${told.scopes.at(-1)}`);
  live.start();
}

/** Show the form again, and say why where it was not asked for. */
function close(refused) {
  const why = byId("sign-in-why");
  const wasIn = session() !== null;
  live.stop();
  clearInterval(countdown);
  forgetKey();
  setSession(null);
  byId("main").hidden = true;
  byId("sign-out").hidden = true;
  byId("question").close("no");
  byId("sign-in-place").hidden = false;
  show(byId("who"));
  show(byId("connection"), "signed out");
  byId("connection").dataset.state = "out";
  document.body.dataset.connection = "out";
  show(byId("lost"));
  show(why, refused === null ? null : whyOver(refused));
  if (wasIn) byId("sign-in-token").focus();
}

function whyOver(refused) {
  const lead = wasLive
    ? "You are signed out: the session ended, as it does when its token is revoked, when the daemon " +
      "is started again, and after 12 hours."
    : "Sign in again: the session of before is over.";
  return [h("strong", {}, lead), ` (${refused.message})`];
}

async function leave() {
  const ending = signOut();
  close(null); // At once, whether the daemon answers or not.
  for (const form of document.forms) form.reset();
  try {
    await ending;
  } catch (error) {
    if (!(error instanceof Refused)) {
      const text = "Signed out here. The daemon did not answer: it ends the session within 12 hours.";
      show(byId("sign-in-why"), text);
      return;
    }
  }
  location.reload(); // Nothing of what was shown or typed stays.
}

// Whether it is of now

let countdown = null;

function showConnection({ state, since, retryAt, why }) {
  clearInterval(countdown);
  if (state === "live") wasLive = true;
  const place = byId("connection");
  const asOf = since ? `; what is shown is as of ${localTime(Math.floor(since / 1000))}` : "";
  const told = { live: "live", lost: "connection lost", connecting: `connecting${asOf}` }[state];
  if (place.dataset.state !== state) {
    place.dataset.state = state;
    show(place, told);
    document.body.dataset.connection = state;
    if (state === "live") show(byId("lost"));
    else if (state === "lost") showLost(since, why);
  }
  if (state !== "lost") return;
  const tick = () => {
    const left = Math.max(0, Math.round((retryAt - Date.now()) / 1000));
    show(byId("retry"), left ? `Trying again in ${left} s. ` : "Trying again. ");
  };
  tick();
  countdown = setInterval(tick, 1_000);
}

function showLost(since, why) {
  const asOf = since ? `What is shown is as of ${localTime(Math.floor(since / 1000))}. ` : "";
  show(
    byId("lost"),
    h(
      "div",
      { class: "alarm" },
      h("strong", { role: "alert" }, `Connection lost: ${why.message}. ${asOf}`),
      h("span", { id: "retry" }),
      h("button", { type: "button", class: "quiet", onclick: tryNow }, "Try now"),
    ),
  );
}

function tryNow() {
  if (session() === null) resume();
  else live.retry();
}

function showStanding(status) {
  if (status === undefined) {
    show(byId("standing"));
    return;
  }
  const height = status.height < 0 ? "unknown" : number(status.height);
  show(byId("standing"), `${status.network}, height ${height}`);
}
