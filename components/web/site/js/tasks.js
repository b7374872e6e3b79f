// Tasks in words and pictures, as several pages show them.

import { Trouble, get, post, wish } from "./api.js";
import { number, words } from "./language.js";
import { isFinal } from "./live.js";
import { recount, setCredits } from "./person.js";

const w = words({
  en: {
    reasons: {},
    back: (n) => `${number(n)} ${n === 1 ? "credit came" : "credits came"} back.`,
    cancelled: "You cancelled it.",
    unknown: "The picture could not be made.",
    underWay: "Your order from before is still being worked on. Press again in a moment; nothing is ordered twice.",
  },
  zh: {
    reasons: {
      "The AI provider refused this picture.": "图片服务拒绝生成这张图片。",
      "The AI provider could not read the photo.": "图片服务无法读取照片。",
      "The AI provider could not make this picture.": "图片服务未能生成这张图片。",
      "The AI provider could not take the picture in time.": "图片服务未能及时接单。",
      "The picture could not be ordered.": "图片未能下单。",
      "The AI provider returned no picture.": "图片服务没有返回图片。",
      "The AI provider's picture could not be used.": "返回的图片无法使用。",
      "The AI provider's picture could not be fetched in time.": "图片未能及时取回。",
      "The AI provider did not finish in time.": "图片服务未能按时完成。",
      "The AI provider did not answer in time.": "图片服务没有及时回应。",
    },
    back: (n) => `已退回 ${number(n)} 点。`,
    cancelled: "您已取消。",
    unknown: "未能生成图片。",
    underWay: "之前的订单仍在处理中。请稍后再按一次，不会重复下单。",
  },
});

/** Why a task failed, and that its price came back. */
export function reason(task) {
  const why = task.failure_reason === "cancelled" ? w.cancelled : (w.reasons[task.failure_reason] ?? task.failure_reason ?? w.unknown);
  return `${why} ${w.back(task.price)}`;
}

let shelves;
/** The catalogue: {styles, colors, models}. Asked for once. */
export function catalogue() {
  shelves ??= Promise.all([get("/api/hairstyles"), get("/api/hair-colors")])
    .then(([{ hairstyles, models }, { hair_colors }]) => ({ styles: hairstyles, models, colors: hair_colors }))
    .catch((error) => {
      shelves = undefined;
      throw error;
    });
  return shelves;
}

export const find = (list, id) => list.find((entry) => entry.id === id);

/** Seconds after which a picture is said to take long. */
const LONG = 90;

/** Whether a picture takes longer than they usually do. */
export const isLate = (task) => !isFinal(task) && Date.now() / 1000 > task.created_at + LONG;

/** Calls back when it begins to; from then on nothing else may happen for minutes. */
export function whenLate(task, callback, signal) {
  const wait = (task.created_at + LONG) * 1000 - Date.now();
  if (wait < 0) return;
  const timer = setTimeout(callback, wait + 100);
  signal.addEventListener("abort", () => clearTimeout(timer));
}

/** Lets what is told of a task go on where it stands. Nothing is drawn anew, so nobody loses hold of it. */
export function goOn(place, task, text) {
  const meter = place.querySelector("progress");
  if (meter) meter.value = task.progress;
  const said = text && place.querySelector(`[role="status"]`);
  if (said && said.textContent !== text) said.textContent = text;
}

/** The keys of what was sent and of which it is not known what came of it, by what was wished. They outlive the page that sent it. */
const keys = new Map();
/** Where they are while the whole console is loaded anew, in this tab; and for how long, in milliseconds. Later the same wish is another one. */
const SHELF = "wishes";
const KEPT = 15 * 60_000;

try {
  const { at, wishes } = JSON.parse(sessionStorage.getItem(SHELF));
  if (Date.now() - at < KEPT) for (const [name, key] of wishes) keys.set(name, key);
} catch {
  // There are none, or it is not allowed to remember.
}

window.addEventListener("pagehide", () => {
  try {
    sessionStorage.setItem(SHELF, JSON.stringify({ at: Date.now(), wishes: [...keys] }));
  } catch {
    // Not allowed to remember.
  }
});

/** What is answered before anybody knows what has come of a key: the first is still at work, or nobody has looked. */
const UNDECIDED = ["conflict", "rate_limited", "unauthenticated"];

/**
 * Sends a wish with an Idempotency-Key, by `send(key)`, and answers what that does. The same wish (anything that can be JSON) has the same key
 * until it is known what came of it: it was answered, or refused in so many words. So an answer that got lost costs nothing twice, however
 * often and from whichever page it is tried again. A conflict says that the first is still at work, and is told so; where it can mean something
 * else, `send` gives it another code. For everything that spends: orders of pictures, and of credits.
 */
export async function keyed(wished, send) {
  const name = JSON.stringify(wished);
  const key = keys.get(name) ?? wish();
  keys.set(name, key);
  const settled = () => keys.get(name) === key && keys.delete(name);
  try {
    const answer = await send(key);
    // One that was cut off is as good as lost.
    if (!answer) throw new Trouble(0, undefined);
    settled();
    return answer;
  } catch (error) {
    if (error.status >= 400 && error.status < 500 && !UNDECIDED.includes(error.code)) settled();
    throw error.code === "conflict" ? Object.assign(new Error(w.underWay), { words: w.underWay }) : error;
  }
}

/** Orders pictures and answers the tasks. However often the same is tried, it is ordered once. */
export async function order(wanted, wished = wanted) {
  const { tasks, credits } = await keyed(wished, (once) => post("/api/tasks", { json: wanted, once }));
  setCredits(credits.balance);
  return tasks;
}

/** The same picture once more: another wish than the first, even where it reads the same. */
export function again(task) {
  const { task_no, upload_id, hairstyle, hair_color, detail, model } = task;
  return order({ upload_id, hairstyles: [hairstyle], hair_color: hair_color ?? undefined, detail: detail ?? undefined, model }, { again: task_no });
}

export async function cancel(task) {
  const answer = await post(`/api/tasks/${encodeURIComponent(task.task_no)}/cancel`);
  await recount();
  return answer.task;
}

/** The path of a result: the page may be reached by another name than the one the server calls itself. */
export const pathOf = (url) => new URL(url, location.href).pathname;
