/** Who is signed in here, and what for. */

const INCLUDED_IN = { read: 0, receive: 1, spend: 2, operate: 3 }; // Each includes those before it.
const listeners = [];
let current = null;

/** The session, null where nobody is signed in. */
export const session = () => current;

/** Remember who is signed in, and let whatever depends on it follow. */
export function setSession(told) {
  current = told;
  for (const listener of listeners) listener();
}

/** Whether the session's token is for something. */
export function may(scope) {
  const held = (current?.scopes ?? []).map((one) => INCLUDED_IN[one]);
  return Math.max(-1, ...held) >= INCLUDED_IN[scope];
}

/** Call now, and whenever somebody signs in or out. */
export function onSession(listener) {
  listeners.push(listener);
  listener();
}
