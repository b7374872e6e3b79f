// All one's pictures, newest first.

import { get } from "../api.js";
import { h, put } from "../dom.js";
import { named, relative, words } from "../language.js";
import { isFinal, watch } from "../live.js";
import { bones, drawing, empty, failed, growing, link, statusPill } from "../parts.js";
import { recount } from "../person.js";
import { catalogue, find, goOn, pathOf } from "../tasks.js";

const w = words({
  en: { title: "Gallery", text: "Every picture you had made, until you delete your account.", none: "No pictures yet", noneText: "What you have made in the studio hangs here.", start: "To the studio" },
  zh: { title: "相册", text: "您生成过的所有图片，直到您删除账户。", none: "还没有图片", noneText: "在工作室生成的图片会挂在这里。", start: "前往工作室" },
});

export const title = w.title;

export function render({ signal }) {
  const wall = h("ul", { class: "wall" });
  const body = h("div", {}, bones(4));
  hang(wall, body, signal);
  return h("div", { class: "page" }, h("div", { class: "head" }, h("div", {}, h("h1", { tabindex: "-1" }, w.title), h("p", {}, w.text)), link(w.start, "/", "primary")), body);
}

async function hang(wall, body, signal) {
  try {
    const books = await catalogue();
    put(body, wall);
    await growing(
      wall,
      async (cursor) => {
        const { tasks, next_cursor: next } = await get(`/api/tasks?limit=24${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`, { signal });
        return { items: tasks, next };
      },
      (task) => frameOf(task, books, signal),
      { none: () => empty("empty-gallery", w.none, w.noneText, link(w.start, "/", "primary")), signal },
    );
  } catch (error) {
    if (error.name !== "AbortError") put(body, failed(error, () => (put(wall), hang(wall, body, signal))));
  }
}

function frameOf(task, books, signal) {
  const element = h("li", {});
  let drawn;
  const draw = (now) => {
    if (now.status === drawn) return goOn(element, now);
    drawn = now.status;
    const held = element.contains(document.activeElement);
    put(element, card(now, books));
    if (held) element.firstChild.focus({ preventScroll: true });
  };
  draw(task);
  if (!isFinal(task)) {
    watch(task.task_no, (now) => {
      draw(now);
      if (isFinal(now)) recount();
    }, { signal });
  }
  return element;
}

function card(task, { styles, colors }) {
  const style = find(styles, task.hairstyle);
  const color = find(colors, task.hair_color ?? "keep-original");
  const name = style ? named(style) : task.hairstyle;
  const face =
    task.status === "completed"
      ? h("img", { src: pathOf(task.result_urls[0]), alt: "", loading: "lazy" })
      : h("div", { class: "blank" }, drawing(task.hairstyle, color?.hex), !isFinal(task) && h("progress", { class: "meter", max: 1, value: task.progress, "aria-label": name }));
  return h(
    "a",
    { class: "hung", href: `/gallery/${task.task_no}` },
    face,
    h("span", { class: "caption" }, h("span", {}, h("strong", {}, name), h("span", { class: "muted tiny" }, relative(task.created_at))), task.status !== "completed" && statusPill(task.status)),
  );
}
