/**
 * What the page knows of the daemon, kept up to date: answers by name, asked for again when an event
 * touches them. While the daemon cannot be heard, everything says since when it is old; while nobody
 * looks at the page, nothing is asked.
 */

import { Refused, get, getPicture, newestCursor } from "./api.js";
import { follow } from "./event_stream.js";
import { touchedBy } from "./touched.js";

const GAP_MS = 700; // Between two questions for one thing, however much happens.
const GAPS_OF_AN_ANSWER = 5; // And this many times as long as the answer took.
const AGAIN_MS = 5_000; // After what the daemon says may succeed later.
const LOOK_MS = 10_000; // No event tells that a node fell silent: the status is asked for anyway.
const RETRY_MS = [1_000, 2_000, 4_000, 8_000, 15_000, 30_000];

export class Live {
  #sources = new Map();
  #watchers = [];
  #listeners = [];
  #running = null; // The AbortController of what is under way.
  #round = null; // And of one try of it: what was asked in another counts no more.
  #isWanted = false;
  #lookedAt = -LOOK_MS; // As all that is measured here, by a clock that nobody sets.

  /**
   * @param {function(Object)} onConnection Told of `{state, since, retryAt, why}`; `since` is when
   *   the daemon was heard last, 0 if never.
   */
  constructor(onConnection) {
    this.onConnection = onConnection;
    this.heardAt = 0;
    document.addEventListener("visibilitychange", () => this.#lookedAtOrNot());
    addEventListener("online", () => this.#isWanted && !document.hidden && this.retry());
  }

  /**
   * Keep an answer.
   * @param {string} name Whatever touches this name asks for it again.
   * @param {string|function(): string|null} path What is asked; null while nothing is to be.
   * @param {{isPicture: boolean}} how
   */
  add(name, path, { isPicture = false } = {}) {
    const pathOf = typeof path === "function" ? path : () => path;
    this.#sources.set(name, {
      pathOf,
      path: undefined, // What was asked last.
      ask: isPicture ? getPicture : get,
      value: undefined,
      error: null,
      askedAt: -GAP_MS,
      tookMs: 0,
      timer: null,
      round: null, // In which it is being asked for.
      isTouched: false,
    });
    if (this.#running !== null) this.refresh(name);
  }

  /** The answer of a name, undefined while it is not known. */
  value(name) {
    return this.#sources.get(name).value;
  }

  /** Draw with the answers of these names, `{value, error}` of each, whenever one is new. */
  watch(names, draw) {
    const watcher = { names, draw };
    this.#watchers.push(watcher);
    this.#tell(watcher);
  }

  /** Tell of each event as it happens. */
  listen(listener) {
    this.#listeners.push(listener);
  }

  start() {
    this.#isWanted = true;
    if (!document.hidden && this.#running === null) this.#run();
  }

  /** Stop, and forget all that was answered. */
  stop() {
    this.#isWanted = false;
    this.heardAt = 0;
    this.#end();
    for (const [name, source] of this.#sources) {
      source.value = undefined;
      source.error = null;
      this.#draw(name);
    }
  }

  /** Try to connect now. */
  retry() {
    this.#end();
    this.#run();
  }

  #end() {
    this.#running?.abort();
    this.#round?.abort();
    this.#running = null;
    this.#round = null;
  }

  #lookedAtOrNot() {
    if (!this.#isWanted) return;
    if (document.hidden) this.#end();
    else this.retry();
  }

  async #run() {
    const own = new AbortController();
    this.#running = own;
    this.onConnection({ state: "connecting", since: this.heardAt });
    for (let failures = 0; !own.signal.aborted; failures += 1) {
      const round = new AbortController();
      this.#round = round;
      try {
        const cursor = await newestCursor(round.signal);
        await Promise.all([...this.#sources.keys()].map((name) => this.#ask(name)));
        round.signal.throwIfAborted();
        this.#heard(); // Not before: what was shown until then is old.
        const onHeard = () => {
          failures = 0;
          this.#heard();
        };
        await follow(cursor, { onEvent: (event) => this.#happened(event), onHeard }, round.signal);
      } catch (error) {
        if (own.signal.aborted || isOver(error)) return;
        const why = round.signal.aborted ? round.signal.reason : error;
        round.abort();
        await this.#pause(RETRY_MS[Math.min(failures, RETRY_MS.length - 1)], why, own.signal);
      }
    }
  }

  /** Wait before the next try, saying so. */
  #pause(milliseconds, error, signal) {
    const wait = milliseconds * (0.75 + Math.random() / 2); // Not all pages at once.
    const retryAt = Date.now() + wait;
    this.onConnection({ state: "lost", since: this.heardAt, retryAt, why: error });
    return new Promise((resolve) => {
      setTimeout(resolve, wait);
      signal.addEventListener("abort", resolve, { once: true });
    });
  }

  #heard() {
    this.heardAt = Date.now();
    this.onConnection({ state: "live", since: this.heardAt });
    if (performance.now() - this.#lookedAt > LOOK_MS) {
      this.#lookedAt = performance.now();
      this.refresh("status");
    }
  }

  #happened(event) {
    const names = touchedBy(event.event) ?? this.#sources.keys();
    for (const name of names) this.refresh(name);
    for (const listener of this.#listeners) listener(event);
  }

  /** Ask for an answer again, soon: once, however often that is wanted until then. */
  refresh(name) {
    const source = this.#sources.get(name);
    if (source === undefined || this.#round === null) return;
    source.isTouched = true;
    if (source.timer !== null || source.round === this.#round) return;
    const gap = Math.max(GAP_MS, GAPS_OF_AN_ANSWER * source.tookMs);
    const wait = Math.max(0, source.askedAt + gap - performance.now());
    source.timer = setTimeout(() => {
      source.timer = null;
      this.#ask(name);
    }, wait);
  }

  async #ask(name) {
    const source = this.#sources.get(name);
    const round = this.#round;
    if (round === null || round.signal.aborted) return; // All is asked for in the next one.
    if (source.round === round) {
      source.isTouched = true;
      return;
    }
    const path = source.pathOf();
    source.path = path;
    source.isTouched = false;
    source.round = round;
    source.askedAt = performance.now();
    try {
      const value = path === null ? undefined : await source.ask(path, round.signal);
      if (round.signal.aborted) return;
      if (path === source.pathOf()) Object.assign(source, { value, error: null });
      else source.isTouched = true;
    } catch (error) {
      if (round.signal.aborted || isOver(error)) return;
      // What is refused belongs to this answer; else the connection is lost, which says so itself.
      if (error instanceof Refused) {
        Object.assign(source, { value: undefined, error });
        if (error.retryable) setTimeout(() => this.refresh(name), AGAIN_MS);
      } else {
        round.abort(error);
        return;
      }
    } finally {
      if (source.round === round) {
        source.round = null;
        source.tookMs = performance.now() - source.askedAt;
      }
    }
    this.#draw(name);
    // What is asked for may depend on what was answered now.
    for (const [other, { path: asked, pathOf }] of this.#sources) {
      if (asked !== undefined && pathOf() !== asked) this.refresh(other);
    }
    if (source.isTouched) this.refresh(name);
  }

  #draw(name) {
    for (const watcher of this.#watchers) if (watcher.names.includes(name)) this.#tell(watcher);
  }

  /** Let one draw; what it cannot draw keeps nothing else from being asked for and drawn. */
  #tell({ names, draw }) {
    try {
      draw(...names.map((name) => this.#sources.get(name)));
    } catch (error) {
      reportError(error);
    }
  }
}

/** Whether the session is over: whoever shows the page is told of it, and stops this. */
function isOver(error) {
  return error instanceof Refused && error.isSignedOut;
}
