// Tasks as they go on: by server-sent events, and by asking again where those cannot be had.

import { get } from "./api.js";

/** Streams at a time: browsers keep six connections to a server, and the rest of the page needs some of them. */
const MOST_STREAMS = 3;
/** Milliseconds between two looks where there is no stream. */
const PACE = 2_000;
/** Milliseconds without a stream after which the connection counts as gone. */
const DOUBT = 4_000;

let streams = 0;

export const isFinal = (task) => task.status === "completed" || task.status === "failed";

/**
 * Calls `tell(task)` at every change of a task, the last time when it is final. `trouble(error)` is told when the server cannot be reached,
 * and null when it can again. The signal ends it.
 */
export function watch(taskNo, tell, { signal, trouble = () => {} } = {}) {
  const path = `/api/tasks/${encodeURIComponent(taskNo)}`;
  let over = false;
  let source;
  let timer;
  let doubt;

  /** The server is there. */
  function reached() {
    clearTimeout(doubt);
    doubt = undefined;
    trouble(null);
  }

  function heard(task) {
    if (over) return;
    reached();
    tell(task);
    if (isFinal(task)) end();
  }

  function end() {
    over = true;
    clearTimeout(timer);
    clearTimeout(doubt);
    hangUp();
  }

  function hangUp() {
    if (!source) return;
    source.close();
    source = undefined;
    streams -= 1;
  }

  async function look() {
    if (over) return;
    let wait = PACE;
    try {
      heard((await get(path, { signal })).task);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === 404 || error.status === 401) {
        trouble(error);
        return end();
      }
      wait = (error.retryAfter ?? 4) * 1_000;
      trouble(error);
    }
    if (!over) timer = setTimeout(look, wait);
  }

  function listen() {
    if (streams >= MOST_STREAMS || !window.EventSource) return look();
    streams += 1;
    source = new EventSource(`${path}/events`);
    source.addEventListener("task", (event) => heard(JSON.parse(event.data).task));
    source.addEventListener("open", reached);
    source.addEventListener("error", () => {
      if (over || !source) return;
      // Between two connections the browser comes back by itself, after two seconds. One that does not come is said to be gone.
      if (source.readyState !== EventSource.CLOSED) {
        doubt ??= setTimeout(() => trouble(new Error("no connection")), DOUBT);
        return;
      }
      // Closed means that it will not: refused, or nothing more to come.
      hangUp();
      look();
    });
  }

  signal?.addEventListener("abort", end);
  listen();
}
