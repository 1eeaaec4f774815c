/** The daemon's API, with the session's key; what it refuses is an error that says what to do. */

const KEY = "cromford-key"; // The storage belongs to this port alone.
const SESSION = "/session";
const JSON_TYPE = "application/json";
export const SIGNED_OUT = "cromford-signed-out"; // An event of the document; its detail says why.
const BEYOND_SAFE = /[^\w."-]-?\d{16,}/;
const ID_OF_NOTHING = "f".repeat(64);
const ANSWER_MS = 60_000; // A payment that is waited for is answered after 20 seconds.

/** What the daemon refused, in its own words. */
export class Refused extends Error {
  constructor(status, body) {
    super(body.message);
    this.status = status;
    this.code = body.code;
    this.remediation = body.remediation ?? "";
    this.param = body.param ?? null;
    this.retryable = body.retryable ?? false;
  }

  /** Whether there is no session any more. */
  get isSignedOut() {
    return this.status === 401;
  }
}

/** Nobody answered. Whether a request was carried out is not known then. */
export class Unreachable extends Error {
  constructor(message = "the daemon does not answer") {
    super(message);
    this.remediation = "Is it running, and is the way to it open?";
  }
}

/** JSON whose whole numbers are exact: those that a Number cannot hold become a BigInt. */
export function parsed(text) {
  if (!BEYOND_SAFE.test(text)) return JSON.parse(text);
  return JSON.parse(text, (_name, value, context) => {
    const isInexact = typeof value === "number" && !Number.isSafeInteger(value);
    return isInexact && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value;
  });
}

/** The path with its query; what is null is left out, and a list is given item by item. */
export function withQuery(path, query = {}) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") asked.append(name, String(one));
    }
  }
  return asked.size ? `${path}?${asked}` : path;
}

/**
 * Ask the daemon; the answer's body is left to the caller. What does not end ends with its signal,
 * all else after a while, too: a way to the daemon may swallow what is sent.
 * @throws {Refused|Unreachable}
 */
export async function request(verb, path, { body, signal, accept = JSON_TYPE, isEndless } = {}) {
  const headers = { Accept: accept };
  const key = localStorage.getItem(KEY);
  if (key !== null) headers["Cromford-Key"] = key;
  if (body !== undefined) headers["Content-Type"] = JSON_TYPE;
  const ends = [signal, isEndless ? null : AbortSignal.timeout(ANSWER_MS)].filter(Boolean);
  let response;
  try {
    response = await fetch(path, {
      method: verb,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.any(ends),
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable();
  }
  if (response.ok) return response;
  const said = await bodyOf(response);
  // A proxy's words, not the daemon's, which may be carrying it out.
  if (!said.code) throw new Unreachable(`the daemon does not answer (HTTP ${response.status})`);
  const refused = new Refused(response.status, said);
  // Whoever signs in is told beside the form; all else ends with the session, whatever asked.
  if (refused.isSignedOut && path !== SESSION) {
    // Another tab has signed in meanwhile: it is not that session which is over.
    if (localStorage.getItem(KEY) !== key) throw new Unreachable();
    document.dispatchEvent(new CustomEvent(SIGNED_OUT, { detail: refused }));
  }
  throw refused;
}

async function bodyOf(response) {
  try {
    return (await response.json()) ?? {};
  } catch {
    return {};
  }
}

async function textOf(response) {
  try {
    return await response.text();
  } catch {
    throw new Unreachable();
  }
}

/** What a GET answers, as data. */
export async function get(path, signal) {
  return parsed(await textOf(await request("GET", path, { signal })));
}

/** What a GET of a picture answers. */
export async function getPicture(path, signal) {
  return textOf(await request("GET", path, { signal, accept: "image/svg+xml" }));
}

/** What a POST answers, as data. */
export async function post(path, body = {}) {
  return parsed(await textOf(await request("POST", path, { body })));
}

/** The cursor after everything that happened so far: nothing is about this id. */
export async function newestCursor(signal) {
  return (await get(withQuery("/v1/events", { about: ID_OF_NOTHING }), signal)).cursor;
}

// The session

export const hasKey = () => localStorage.getItem(KEY) !== null;
export const forgetKey = () => localStorage.removeItem(KEY);
export const whoAmI = () => get(SESSION);

/** Call whenever another tab signs in or out: all tabs of a browser have one session. */
export function onKeyElsewhere(listener) {
  addEventListener("storage", ({ key }) => (key === KEY || key === null) && listener());
}

/** What names all files of the page together, as the daemon has them now. */
export async function pageVersion() {
  return (await request("HEAD", "/")).headers.get("etag");
}

/** Begin a session with a token. */
export async function signIn(token) {
  const { key, ...session } = await post(SESSION, { token });
  localStorage.setItem(KEY, key);
  return session;
}

/** End it, at the daemon and here. */
export async function signOut() {
  try {
    await request("DELETE", SESSION);
  } finally {
    forgetKey();
  }
}
