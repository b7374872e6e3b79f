// What pages are put together from.

import { h, id, put, svg } from "./dom.js";
import { words } from "./language.js";

const w = words({
  en: {
    before: "Before", after: "After", slider: "How much of the photo before is shown", cancel: "Cancel", retry: "Try again", more: "Show more", loading: "Loading",
    status: { pending: "Waiting", processing: "In the making", completed: "Done", failed: "Failed" },
    wrongHead: "This did not work",
  },
  zh: {
    before: "之前", after: "之后", slider: "显示多少原照片", cancel: "取消", retry: "重试", more: "显示更多", loading: "加载中",
    status: { pending: "等待中", processing: "生成中", completed: "已完成", failed: "失败" },
    wrongHead: "出错了",
  },
});

/** The folder of the site's files: its name changes with their content. */
const assets = new URL("../", import.meta.url);
export const asset = (path) => new URL(path, assets).pathname;

/** A button that is busy while what it starts goes on. */
export function button(text, { kind = "", icon: name, onclick, ...rest } = {}) {
  const element = h("button", { type: "button", class: `button ${kind}`, ...rest }, name && icon(name), text);
  if (onclick) {
    element.addEventListener("click", async (event) => {
      if (element.getAttribute("aria-busy") === "true") return;
      const going = onclick(event, element);
      if (!(going instanceof Promise)) return;
      element.setAttribute("aria-busy", "true");
      try {
        await going;
      } catch (error) {
        complain(error);
      } finally {
        element.removeAttribute("aria-busy");
      }
    });
  }
  return element;
}

export function link(text, href, kind = "", props = {}) {
  return h("a", { class: `button ${kind}`, href, ...props }, text);
}

export function pill(text, kind = "") {
  return h("span", { class: `pill ${kind}` }, text);
}

const STATUS_KIND = { pending: "wait", processing: "wait", completed: "good", failed: "bad" };
/** A task's status in words. */
export function statusPill(status) {
  return pill(w.status[status] ?? status, STATUS_KIND[status]);
}

/** A passing word at the foot of the page, also for screen readers. */
export function note(text, seconds = 6) {
  const element = h("div", { class: "note" }, text);
  const notes = document.getElementById("notes");
  // Said twice within a moment, it is one word.
  for (const other of notes.children) if (other.textContent === text) other.remove();
  notes.append(element);
  setTimeout(() => element.remove(), seconds * 1000);
}

/** Says something to those who hear the page instead of seeing it change. */
export function announce(text) {
  const element = h("span", { class: "hush" }, text);
  document.getElementById("notes").append(element);
  setTimeout(() => element.remove(), 10_000);
}

/** Tells a person about an error, whatever it is. */
export function complain(error) {
  if (error?.name === "AbortError") return;
  note(error?.words ?? error?.message ?? w.wrongHead, 9);
  if (!error?.words) console.warn(error);
}

/** What stands in the place of something that could not be loaded. */
export function failed(error, again, head = "h2") {
  return h("div", { class: "empty", role: "alert" }, h(head, { tabindex: "-1" }, w.wrongHead), h("p", {}, error.words ?? error.message), again && button(w.retry, { onclick: again }));
}

export function empty(picture, head, text, ...more) {
  return h("div", { class: "empty" }, picture && h("img", { src: asset(`img/${picture}.svg`), alt: "", width: 132, height: 132 }), h("h2", {}, head), h("p", {}, text), more);
}

export function bones(lines = 3) {
  return h("div", { class: "stack", "aria-busy": "true", "aria-label": w.loading, role: "status" }, Array.from({ length: lines }, () => h("div", { class: "bones" })));
}

/**
 * Fills a place of a page with what `load` puts there. Until then it holds bones; what went wrong is told there, with a way to try again.
 * `wrap` is put around both.
 */
export async function fill(place, load, { signal, lines = 3, wrap = (content) => content } = {}) {
  put(place, wrap(bones(lines)));
  try {
    await load();
  } catch (error) {
    if (error.name === "AbortError" || signal?.aborted) return;
    const again = async () => {
      await fill(place, load, { signal, lines, wrap });
      // The button is gone, and the focus with it.
      place.tabIndex = -1;
      place.focus({ preventScroll: true });
    };
    put(place, wrap(failed(error, again)));
  }
}

/**
 * Asks before something that cannot be undone. Answers whether to go on. `no` names the way out. `act` is what is done meanwhile: the dialog
 * closes when it has succeeded, stays when it answers false, and shows what it throws.
 */
export function ask({ head, text, yes, no = w.cancel, danger = false, body, act }) {
  return new Promise((resolve) => {
    const title = id("dialog");
    const wrong = h("p", { class: "say bad", role: "alert", hidden: true });
    let busy = false;
    const go = async () => {
      wrong.hidden = true;
      busy = true;
      try {
        if ((await act?.()) !== false) dialog.close("yes");
      } catch (error) {
        wrong.textContent = error.words ?? error.message;
        wrong.hidden = false;
      } finally {
        busy = false;
      }
    };
    const dialog = h(
      "dialog",
      { "aria-labelledby": title, oncancel: (event) => busy && event.preventDefault(), onclose: () => (dialog.remove(), resolve(dialog.returnValue === "yes")) },
      h("h2", { id: title }, head),
      text && h("p", {}, text),
      body,
      wrong,
      h(
        "div",
        { class: "row" },
        h("button", { type: "button", class: "button", onclick: () => busy || dialog.close("no") }, no),
        button(yes, { kind: danger ? "danger" : "primary", onclick: go }),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A labelled field. `input` is the control itself. */
export function field(label, input, { hint } = {}) {
  input.id ||= id("field");
  input.classList.add("input");
  const below = id("hint");
  const wrong = h("p", { class: "wrong", id: below, hidden: true });
  const hinted = hint && h("p", { class: "hint", id: `${below}h` }, hint);
  input.setAttribute("aria-describedby", hinted ? `${below}h ${below}` : below);
  const element = h("div", { class: "field" }, h("label", { for: input.id }, label), input, hinted, wrong);
  /** Marks it as wrong, or as right again with an empty text. */
  element.mark = (text) => {
    wrong.textContent = text ?? "";
    wrong.hidden = !text;
    if (text) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  };
  return element;
}

/** One of a few: [[value, text], ...]. */
export function choices(legend, options, value, onchoice) {
  const name = id("choice");
  return h(
    "fieldset",
    { class: "choices" },
    h("legend", { class: "hush" }, legend),
    options.map(([of, text]) => h("label", {}, h("input", { type: "radio", name, value: of, checked: of === value, onchange: () => onchoice(of) }), h("span", {}, text))),
  );
}

/** A photo before and after, with a line to move between them by mouse, finger or arrow keys. */
export function compare(before, after, ratio) {
  const range = h("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": w.slider });
  const element = h(
    "div",
    { class: "compare" },
    h("img", { src: after, alt: w.after, draggable: "false" }),
    h("img", { class: "before", src: before, alt: w.before, draggable: "false" }),
    h("span", { class: "line" }),
    h("span", { class: "tag left" }, w.before),
    h("span", { class: "tag right" }, w.after),
    range,
  );
  if (ratio) element.style.aspectRatio = ratio;
  range.addEventListener("input", () => element.style.setProperty("--at", `${range.value}%`));
  return element;
}

/** A drawing of the catalogue, its hair in a colour. */
export function drawing(style, hex) {
  const element = svg("svg", { class: "drawing", viewBox: "0 0 160 160", "aria-hidden": "true" }, svg("use", { href: `${asset("hairstyles.svg")}#${style}` }));
  if (hex) element.style.color = hex;
  return element;
}

/** A list that grows by pages: `load(cursor)` answers {items, next}. `draw(item)` answers an element. */
export function growing(container, load, draw, { none, signal } = {}) {
  const more = button(w.more, {
    onclick: async () => {
      const last = container.lastElementChild;
      await next();
      // The button went away with the last page: the focus goes to where the new ones begin.
      if (!foot.hidden) return;
      const first = last?.nextElementSibling ?? container;
      first.tabIndex = -1;
      first.focus({ preventScroll: true });
    },
  });
  const foot = h("div", { class: "row", hidden: true }, more);
  container.after(foot);
  let cursor;
  let any = false;
  async function next() {
    const { items, next: following } = await load(cursor);
    if (signal?.aborted) return;
    any ||= items.length > 0;
    if (!any && none) container.replaceWith(none());
    container.append(...items.map(draw));
    cursor = following;
    foot.hidden = !following;
  }
  return next();
}

/** Puts the first `most` of the items into a list, and answers a button that brings the rest, if there is one. `text(n)` names it. */
export function folded(list, items, draw, most, text) {
  list.append(...items.slice(0, most).map(draw));
  if (items.length <= most) return null;
  const more = button(text(items.length), {
    kind: "quiet unfold",
    onclick: () => {
      const rest = items.slice(most).map(draw);
      list.append(...rest);
      more.parentElement.remove();
      rest[0].tabIndex = -1;
      rest[0].focus({ preventScroll: true });
    },
  });
  return h("div", { class: "row" }, more);
}

const PATHS = {
  scissors: ["M6 9a3 3 0 1 0 0-6 3 3 0 0 0 0 6Z", "M6 21a3 3 0 1 0 0-6 3 3 0 0 0 0 6Z", "M20 4 8.1 15.9", "M14.5 14.5 20 20", "M8.1 8.1 12 12"],
  pictures: ["M4 5h16v14H4z", "m4 16 4.5-4.5L13 16", "m12 14.5 3-3 5 5", "M15.5 9h.01"],
  coin: ["M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18Z", "M12 7.5v9", "M14.6 9.4c-.5-.8-1.5-1.2-2.6-1.2-1.5 0-2.7.8-2.7 1.9 0 2.6 5.4 1.2 5.4 3.8 0 1.1-1.2 1.9-2.7 1.9-1.2 0-2.2-.5-2.7-1.3"],
  person: ["M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8Z", "M4 20c1.2-3.5 4.2-5 8-5s6.8 1.5 8 5"],
  shield: ["M12 3 5 6v5c0 4.5 2.9 8.2 7 10 4.1-1.8 7-5.5 7-10V6z"],
  camera: ["M4 8h3l2-3h6l2 3h3v11H4z", "M12 17a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7Z"],
  upload: ["M12 16V4", "m7 9 5-5 5 5", "M4 16v4h16v-4"],
  download: ["M12 4v12", "m7 11 5 5 5-5", "M4 16v4h16v-4"],
  close: ["M6 6l12 12", "M18 6 6 18"],
  again: ["M4 12a8 8 0 1 0 2.6-5.9", "M4 4v4.5h4.5"],
  check: ["m5 12.5 4.5 4.5L19 7"],
};

export function icon(name) {
  return svg(
    "svg",
    { width: 20, height: 20, viewBox: "0 0 24 24", fill: "none", stroke: "currentColor", "stroke-width": 1.8, "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true" },
    (PATHS[name] ?? []).map((d) => svg("path", { d })),
  );
}
