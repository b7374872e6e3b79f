// Where one is after one's account is gone.

import { h } from "../dom.js";
import { words } from "../language.js";
import { icon, link } from "../parts.js";
import { person } from "../person.js";

const w = words({
  en: {
    title: "Farewell", head: "Your account is gone", text: "You are signed out everywhere, and nobody can sign in to it any more.",
    done: "Nothing of it is left: name, address, photos, pictures and sessions are deleted.", later: "Your name, address and sessions are deleted. Some of your photos and pictures are still being removed; that goes on by itself and usually takes minutes.",
    kept: "Payments and credit movements stay in the books, without your name and address. Backups forget you after 42 days at most.", start: "To the start",
  },
  zh: {
    title: "再见", head: "您的账户已删除", text: "您已在所有设备上退出登录，任何人都无法再登录该账户。",
    done: "姓名、地址、照片、图片和登录记录均已删除，没有留下任何内容。", later: "姓名、地址和登录记录已删除。部分照片和图片仍在删除中，会自动完成，通常只需几分钟。",
    kept: "付款和点数变动保留在账目中，但不含您的姓名和地址。备份中的数据最多在 42 天后消失。", start: "回到首页",
  },
});

export const title = w.title;

export function render({ query }) {
  if (person.user) {
    // Somebody is here, so nobody's account is gone.
    queueMicrotask(() => window.dispatchEvent(new CustomEvent("go", { detail: "/account" })));
    return h("div", { class: "page" });
  }
  return h(
    "div",
    { class: "page narrow" },
    h(
      "section",
      { class: "card receipt" },
      h("div", { class: "sign good", "aria-hidden": "true" }, icon("check")),
      h("h1", { tabindex: "-1" }, w.head),
      h("p", {}, w.text),
      h("p", { class: "muted" }, query.has("later") ? w.later : w.done),
      h("p", { class: "muted small" }, w.kept),
      h("div", { class: "row" }, link(w.start, "/", "primary")),
    ),
  );
}
