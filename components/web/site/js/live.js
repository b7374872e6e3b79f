// Tasks as they go on: by server-sent events, and by asking again where those cannot be had.

import { get } from "./api.js";

/** Streams at a time: browsers keep six connections to a server, and the rest of the page needs some of them. */
const MOST_STREAMS = 3;
/** Milliseconds between the first two looks where there is no stream; from look to look it is longer, up to the longest. */
const PACE = 2_000;
const LONGEST = 10_000;
/** Milliseconds without a stream after which the connection counts as gone. */
const DOUBT = 4_000;

let streams = 0;
/** Those for whom there was no stream, the first first. */
const waiting = new Set();

/** Gives streams that became free to those who wait for one; not at once, for a page that is left frees all of its own. */
function handOn() {
  setTimeout(() => {
    for (const listen of [...waiting].slice(0, Math.max(0, MOST_STREAMS - streams))) listen();
  });
}

export const isFinal = (task) => task.status === "completed" || task.status === "failed";

/**
 * Calls `tell(task)` at every change of a task, the last time when it is final. `trouble(error)` is told when the server cannot be reached,
 * and null when it can again. The signal ends it. Nothing is asked while nobody looks at the page: all tabs share the browser's connections.
 */
export function watch(taskNo, tell, { signal, trouble = () => {} } = {}) {
  if (signal?.aborted) return;
  const path = `/api/tasks/${encodeURIComponent(taskNo)}`;
  let over = false;
  let lost = false;
  let looking = false;
  let pace = PACE;
  let source;
  let timer;
  let doubt;

  /** The server is there, or it is not. */
  function reached(error = null) {
    clearTimeout(doubt);
    doubt = undefined;
    if (lost === Boolean(error)) return;
    lost = Boolean(error);
    say(trouble, error);
  }

  /** Whatever goes wrong on the page itself is no trouble with the server, and ends nothing. */
  function say(callback, what) {
    try {
      callback(what);
    } catch (error) {
      reportError(error);
    }
  }

  function heard(task) {
    if (over) return;
    reached();
    say(tell, task);
    if (isFinal(task)) end();
  }

  function end() {
    over = true;
    document.removeEventListener("visibilitychange", turn);
    rest();
  }

  function rest() {
    waiting.delete(listen);
    clearTimeout(timer);
    clearTimeout(doubt);
    doubt = undefined;
    hangUp();
  }

  function hangUp() {
    if (!source) return;
    source.close();
    source = undefined;
    streams -= 1;
    handOn();
  }

  async function look() {
    if (over || looking) return;
    looking = true;
    let wait = pace;
    pace = Math.min(1.5 * pace, LONGEST);
    try {
      const { task } = await get(path, { signal });
      heard(task);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === 404 || error.status === 401) {
        reached(error);
        return end();
      }
      wait = (error.retryAfter ?? 4) * 1_000;
      reached(error);
    } finally {
      looking = false;
    }
    if (!over && !source && !document.hidden) timer = setTimeout(look, wait);
  }

  function listen() {
    waiting.delete(listen);
    clearTimeout(timer);
    streams += 1;
    source = new EventSource(`${path}/events`);
    source.addEventListener("task", (event) => heard(JSON.parse(event.data).task));
    source.addEventListener("open", () => reached());
    source.addEventListener("error", () => {
      if (over || !source) return;
      // Between two connections the browser comes back by itself, after two seconds. One that does not come is said to be gone.
      if (source.readyState !== EventSource.CLOSED) {
        doubt ??= setTimeout(() => reached(new Error("no connection")), DOUBT);
        return;
      }
      // Closed means that it will not: refused, or nothing more to come.
      hangUp();
      look();
    });
  }

  function begin() {
    if (document.hidden) return;
    pace = PACE;
    if (window.EventSource && streams < MOST_STREAMS) return listen();
    if (window.EventSource) waiting.add(listen);
    look();
  }

  /** Somebody looks at the page again, or nobody does any more. */
  function turn() {
    rest();
    begin();
  }

  document.addEventListener("visibilitychange", turn);
  signal?.addEventListener("abort", end);
  begin();
}
