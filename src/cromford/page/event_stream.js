/** The daemon's events as they happen (server-sent events, HTML section 9.2), through `fetch`. */

import { Unreachable, parsed, request, withQuery } from "./api.js";

const SILENT_MS = 40_000; // The daemon says something every 15 seconds.

/**
 * Follow what happens after a cursor, until the signal ends it.
 * @param {string} after The cursor.
 * @param {{onEvent: function(Object), onHeard: function()}} told `onHeard` for every sign of life.
 * @param {AbortSignal} signal
 * @throws {Refused|Unreachable} The latter also where the daemon ends the stream, or falls silent.
 */
export async function follow(after, { onEvent, onHeard }, signal) {
  const own = new AbortController();
  const end = () => own.abort();
  signal.addEventListener("abort", end, { once: true });
  let watchdog = setTimeout(end, SILENT_MS);
  try {
    const path = withQuery("/v1/events", { after });
    const response = await request("GET", path, {
      signal: own.signal,
      accept: "text/event-stream",
      isEndless: true,
    });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Unreachable();
      clearTimeout(watchdog);
      watchdog = setTimeout(end, SILENT_MS);
      onHeard();
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const event of parts.map(eventOf)) if (event !== null) onEvent(event);
    }
  } catch (error) {
    if (signal.aborted || error.status !== undefined) throw error;
    throw new Unreachable();
  } finally {
    clearTimeout(watchdog);
    signal.removeEventListener("abort", end);
    end(); // Whatever ended it: nobody reads it any more.
  }
}

/** The event in a part of the stream; null of a comment, or of a cursor alone. */
function eventOf(part) {
  const data = part
    .split("\n")
    .filter((line) => line.startsWith("data:"))
    .map((line) => line.slice("data:".length));
  return data.length ? parsed(data.join("\n")) : null;
}
