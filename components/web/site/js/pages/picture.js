// One picture: before and after, what was asked for, and what can be done with it.

import { get } from "../api.js";
import { h, put } from "../dom.js";
import { named, number, time, words } from "../language.js";
import { isFinal, watch } from "../live.js";
import { bones, button, choices, compare, drawing, failed, icon, link, statusPill } from "../parts.js";
import { recount } from "../person.js";
import { again, cancel, catalogue, find, goOn, isLate, pathOf, reason, whenLate } from "../tasks.js";

const w = words({
  en: {
    title: "Picture", back: "Gallery", download: "Download", again: "Make it again", cancel: "Cancel", show: "How it is shown", slider: "Slider", sideBySide: "Side by side",
    style: "Hairstyle", color: "Colour", keep: "As it was", detail: "Your words", model: "Model", price: "Price", credits: (n) => `${number(n)} ${n === 1 ? "credit" : "credits"}`, made: "Ordered", done: "Finished",
    goneBefore: "The photo was deleted after seven days, so only the new picture is left.", before: "Before", after: "After",
    working: "In the making. This usually takes less than a minute.", waiting: "Waiting for its turn.", slow: "This one takes longer than usual. It goes on by itself; if it does not end, your credit comes back.",
    noContact: "The connection is gone for the moment; this page looks again by itself.",
  },
  zh: {
    title: "图片", back: "相册", download: "下载", again: "再生成一次", cancel: "取消", show: "显示方式", slider: "滑块", sideBySide: "并排",
    style: "发型", color: "发色", keep: "保持原色", detail: "您的要求", model: "模型", price: "价格", credits: (n) => `${number(n)} 点`, made: "下单时间", done: "完成时间",
    goneBefore: "原照片已在七天后删除，只保留新图片。", before: "之前", after: "之后",
    working: "正在生成，通常不到一分钟。", waiting: "排队中。", slow: "这张比平时久一些。它会自动继续；如果没有完成，点数会退回。",
    noContact: "暂时无法连接，本页会自动重试。",
  },
});

export const title = w.title;

let way = "slider";

export function render({ task: taskNo, signal }) {
  const body = h("div", {}, bones(4));
  const page = h("div", { class: "page" }, h("p", { class: "small" }, h("a", { href: "/gallery" }, "← ", w.back)), body);
  load(taskNo, body, signal);
  return page;
}

async function load(taskNo, body, signal) {
  try {
    const [books, { task }] = await Promise.all([catalogue(), get(`/api/tasks/${encodeURIComponent(taskNo)}`, { signal })]);
    const view = { body, books, signal, cutOff: false, task };
    draw(view);
    if (isFinal(task)) return;
    whenLate(task, () => draw(view), signal);
    watch(taskNo, (now) => {
      view.task = now;
      draw(view);
      if (isFinal(now)) recount();
    }, { signal, trouble: (error) => ((view.cutOff = Boolean(error)), draw(view)) });
  } catch (error) {
    if (error.name !== "AbortError") put(body, h("h1", { class: "hush", tabindex: "-1" }, w.title), failed(error, () => load(taskNo, body, signal)));
  }
}

/** How a picture stands that is being made. */
function standing({ task, cutOff }) {
  if (cutOff) return w.noContact;
  if (isLate(task)) return w.slow;
  return task.status === "pending" ? w.waiting : w.working;
}

function draw(view) {
  const { body, task, books: { styles, colors, models } } = view;
  const state = [task.status, task.source_url, way].join();
  if (view.state === state) return goOn(body, task, standing(view));
  view.state = state;
  const style = find(styles, task.hairstyle);
  const color = find(colors, task.hair_color ?? "keep-original");
  const name = style ? named(style) : task.hairstyle;
  const held = body.contains(document.activeElement) && document.activeElement;
  put(
    body,
    h("div", { class: "head" }, h("h1", { tabindex: "-1" }, name), statusPill(task.status)),
    h(
      "div",
      { class: "desk" },
      h("div", { class: "stack" }, face(view, name, color)),
      h(
        "div",
        { class: "stack" },
        deeds(view),
        h(
          "dl",
          { class: "facts card" },
          fact(w.style, name),
          fact(w.color, color?.hex ? named(color) : w.keep),
          task.detail && fact(w.detail, task.detail),
          fact(w.model, find(models, task.model)?.name ?? task.model),
          fact(w.price, w.credits(task.price)),
          fact(w.made, time(task.created_at)),
          task.completed_at && fact(w.done, time(task.completed_at)),
        ),
      ),
    ),
  );
  if (held) body.querySelector(held.matches(".choices input") ? ".choices input:checked" : "h1").focus({ preventScroll: true });
}

function fact(term, text) {
  return [h("dt", {}, term), h("dd", {}, text)];
}

function face(view, name, color) {
  const { task } = view;
  const before = task.source_url && pathOf(task.source_url);
  if (task.status === "completed") {
    const after = pathOf(task.result_urls[0]);
    if (!before) return [h("div", { class: "glass" }, h("img", { src: after, alt: name })), h("p", { class: "muted small" }, w.goneBefore)];
    const both =
      way === "slider"
        ? compare(before, after)
        : h("div", { class: "pair" }, h("figure", {}, h("img", { src: before, alt: "" }), h("figcaption", {}, w.before)), h("figure", {}, h("img", { src: after, alt: "" }), h("figcaption", {}, w.after)));
    return [both, choices(w.show, [["slider", w.slider], ["pair", w.sideBySide]], way, (chosen) => ((way = chosen), draw(view)))];
  }
  return [
    h("div", { class: "glass waiting" }, before && h("img", { src: before, alt: "" }), h("div", { class: "over" }, drawing(task.hairstyle, color?.hex))),
    task.status === "failed"
      ? h("p", { class: "say bad", role: "alert" }, reason(task))
      : [h("progress", { class: "meter", max: 1, value: task.progress, "aria-label": name }), h("p", { class: "muted small", role: "status" }, standing(view))],
  ];
}

function deeds(view) {
  const { task } = view;
  const go = (path) => window.dispatchEvent(new CustomEvent("go", { detail: path }));
  return h(
    "div",
    { class: "row" },
    task.status === "completed" && h("a", { class: "button primary", href: `${pathOf(task.result_urls[0])}?download=1`, download: "" }, icon("download"), w.download),
    isFinal(task) && task.source_url && button(w.again, {
      icon: "again",
      onclick: async () => {
        const [fresh] = await again(task);
        if (!view.signal.aborted) go(`/gallery/${fresh.task_no}`);
      },
    }),
    task.status === "pending" && button(w.cancel, { onclick: async () => ((view.task = await cancel(task)), draw(view)) }),
  );
}
