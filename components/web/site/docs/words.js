// Small pieces that the page's parts share: text with code in it, code that can be copied, parts that are put together when they are opened.

import { h, put } from "../js/dom.js";

export const code = (text) => h("code", {}, text);

/** A description: `...` is code. `inline` leaves the paragraphs out. */
export function prose(text, inline = false) {
  const line = (part) => part.split("`").map((piece, at) => (at % 2 ? code(piece) : piece));
  return inline ? line(text) : text.split("\n\n").map((part) => h("p", {}, line(part)));
}

export function pill(text, kind = "") {
  return h("span", { class: `pill ${kind}` }, text);
}

export const statusPill = (status) => pill(String(status), status < 400 ? "good" : "bad");

/** Text as it is typed or answered. It can be scrolled with the keyboard, too. */
export function pre(text, name) {
  return h("pre", { tabindex: 0, role: "group", "aria-label": name }, text);
}

/** Something to open. What is in it is put together when that happens for the first time. */
export function more(summary, content, props = {}) {
  const place = h("div", { class: "stack tight" });
  let filled = false;
  const details = h(
    "details",
    {
      class: "more",
      ...props,
      ontoggle: () => {
        if (!details.open || filled) return;
        filled = true;
        put(place, content());
      },
    },
    h("summary", {}, summary),
    place,
  );
  return details;
}

/** Names with what they mean. */
export function terms(entries) {
  return h("dl", { class: "terms" }, entries.map(([name, meaning]) => h("div", {}, h("dt", {}, name), h("dd", {}, meaning))));
}

/** A button that copies what `text()` answers. */
export function copier(text, name) {
  const label = h("span", { role: "status" }, "Copy");
  let timer;
  const say = (word) => {
    label.textContent = word;
    clearTimeout(timer);
    timer = setTimeout(() => (label.textContent = "Copy"), 2500);
  };
  const copy = () => navigator.clipboard.writeText(text()).then(() => say("Copied"), () => say("Not allowed here"));
  return h("button", { type: "button", class: "button slim", onclick: copy }, label, h("span", { class: "hush" }, ` ${name}`));
}
