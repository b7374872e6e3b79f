// The frame around every page: where one can go, what one can spend, who one is.

import { api } from "./api.js";
import { h, put } from "./dom.js";
import { language, number, speak, words } from "./language.js";
import { asset, button, choices, icon } from "./parts.js";
import { follow, person } from "./person.js";

const w = words({
  en: {
    skip: "Skip to the content", studio: "Studio", gallery: "Gallery", credits: "Credits", admin: "Admin", pages: "Pages",
    balance: (n) => `${number(n)} ${n === 1 ? "credit" : "credits"}`, menu: "Account and settings", account: "Account", out: "Sign out",
    theme: "Appearance", light: "Light", dark: "Dark", system: "System", language: "Language", api: "API description", privacy: "Photos are deleted after seven days.",
  },
  zh: {
    skip: "跳到内容", studio: "工作室", gallery: "相册", credits: "点数", admin: "管理", pages: "页面",
    balance: (n) => `${number(n)} 点`, menu: "账户与设置", account: "账户", out: "退出登录",
    theme: "外观", light: "浅色", dark: "深色", system: "跟随系统", language: "语言", api: "API 文档", privacy: "照片将在七天后删除。",
  },
});

const main = h("main", { id: "main" });
let built = false;
let nav;

/** Puts the frame around the page, once, and answers where the page goes. */
export function frame() {
  if (!built) build();
  for (const anchor of nav.querySelectorAll("a")) {
    const href = anchor.getAttribute("href");
    const here = href === "/" ? location.pathname === "/" : location.pathname.startsWith(href);
    if (here) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  document.querySelectorAll("details.menu[open]").forEach((menu) => menu.removeAttribute("open"));
  return main;
}

function build() {
  built = true;
  nav = h("nav", { "aria-label": w.pages });
  const end = h("div", { class: "end" });
  put(
    document.getElementById("app"),
    h("a", { class: "skip", href: "#main" }, w.skip),
    h("header", { class: "bar" }, h("a", { class: "mark", href: "/" }, h("img", { src: asset("img/favicon.svg"), alt: "", width: 28, height: 28 }), "ai-hairstyle"), nav, end),
    main,
    h("footer", { class: "foot" }, h("span", {}, w.privacy), h("a", { href: "/docs" }, w.api)),
  );
  let before;
  let count;
  follow(({ user, credits }) => {
    document.body.classList.toggle("stranger", !user);
    // Somebody else, or somebody who has become an admin.
    const now = user ? `${user.id} ${user.role}` : null;
    if (before !== now) {
      before = now;
      nav.hidden = !user;
      put(nav, user && [["/", w.studio], ["/gallery", w.gallery], ["/credits", w.credits], user.role === "admin" && ["/admin", w.admin]].filter(Boolean).map(([href, text]) => h("a", { href }, text)));
      count = h("a", { class: "balance", href: "/credits", id: "balance" });
      put(end, user && count, menu(user));
      frame();
    }
    if (user) {
      const text = w.balance(credits);
      const changed = count.dataset.text && count.dataset.text !== text;
      count.dataset.text = text;
      put(count, icon("coin"), text);
      if (changed) {
        count.classList.remove("changed");
        requestAnimationFrame(() => count.classList.add("changed"));
      }
    }
  });
  document.addEventListener("click", (event) => {
    for (const open of document.querySelectorAll("details.menu[open]")) if (!open.contains(event.target)) open.removeAttribute("open");
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const open of document.querySelectorAll("details.menu[open]")) {
      open.removeAttribute("open");
      open.querySelector("summary").focus();
    }
  });
}

function menu(user) {
  const face = user ? h("span", { class: "avatar" }, initials(user.name || user.email)) : h("span", { class: "avatar", "aria-hidden": "true" }, icon("person"));
  return h(
    "details",
    { class: "menu" },
    h("summary", {}, face, h("span", { class: "hush" }, w.menu)),
    h(
      "div",
      { class: "sheet" },
      user && h("div", {}, h("strong", {}, user.name), h("div", { class: "muted tiny" }, user.email)),
      user && h("a", { class: "button", href: "/account" }, w.account),
      h("div", { class: "stack tight" }, h("span", { class: "label" }, w.theme), choices(w.theme, [["", w.system], ["light", w.light], ["dark", w.dark]], theme(), wear)),
      h("div", { class: "stack tight" }, h("span", { class: "label" }, w.language), choices(w.language, [["en", "English"], ["zh", "中文"]], language, speak)),
      user && button(w.out, { kind: "quiet", onclick: leave }),
    ),
  );
}

function initials(name) {
  const parts = name.trim().split(/\s+/);
  return (parts.length > 1 ? parts[0][0] + parts.at(-1)[0] : name.slice(0, 2)).toUpperCase();
}

function theme() {
  return document.documentElement.dataset.theme ?? "";
}

function wear(chosen) {
  try {
    if (chosen) localStorage.setItem("theme", chosen);
    else localStorage.removeItem("theme");
  } catch {
    // Then it holds until the page is left.
  }
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
}

async function leave() {
  await api("POST", "/auth/logout");
  location.assign("/");
}
