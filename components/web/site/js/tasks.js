// Tasks in words and pictures, as several pages show them.

import { get, post, wish } from "./api.js";
import { number, words } from "./language.js";
import { recount, setCredits } from "./person.js";

const w = words({
  en: {
    reasons: {},
    back: (n) => `${number(n)} ${n === 1 ? "credit came" : "credits came"} back.`,
    cancelled: "You cancelled it.",
    unknown: "The picture could not be made.",
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

/** Orders pictures; the same key orders them once, however often it is tried. Answers the tasks. */
export async function order(wanted, once = wish()) {
  const { tasks, credits } = await post("/api/tasks", { json: wanted, once });
  setCredits(credits.balance);
  return tasks;
}

/** The same picture once more. */
export function again(task) {
  const { upload_id, hairstyle, hair_color, detail, model } = task;
  return order({ upload_id, hairstyles: [hairstyle], hair_color: hair_color ?? undefined, detail: detail ?? undefined, model });
}

export async function cancel(task) {
  const answer = await post(`/api/tasks/${encodeURIComponent(task.task_no)}/cancel`);
  await recount();
  return answer.task;
}

/** The path of a result: the page may be reached by another name than the one the server calls itself. */
export const pathOf = (url) => new URL(url, location.href).pathname;
