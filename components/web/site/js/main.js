// Which page it is, and the way from one to the next.

import { Trouble } from "./api.js";
import { h, put } from "./dom.js";
import { words } from "./language.js";
import { failed, note } from "./parts.js";
import { follow, meet, person, recount } from "./person.js";
import { frame } from "./shell.js";

const w = words({
  en: { lost: "There is no such page", lostText: "The address may be mistyped, or what was here is gone.", home: "To the start",
    notIn: { unauthenticated: "You are not signed in: the sign-in was given up or took too long. Try again.", conflict: "This way to sign in belongs to another account already.", other: "The sign-in did not work. Try again in a moment." } },
  zh: { lost: "没有这个页面", lostText: "地址可能有误，或者内容已不存在。", home: "回到首页",
    notIn: { unauthenticated: "未能登录：登录被取消或已超时，请重试。", conflict: "这种登录方式已属于另一个账户。", other: "登录未成功，请稍后重试。" } },
});

// [pattern, module, who may see it]. A page is fetched when somebody goes there. `:name` is a part that the page is told.
const PAGES = [
  ["/", "studio", "person"],
  ["/gallery", "gallery", "person"],
  ["/gallery/:task", "picture", "person"],
  ["/credits", "credits", "person"],
  ["/credits/orders/:order", "order", "person"],
  ["/account", "account", "person"],
  ["/account/farewell", "farewell", "anyone"],
  ["/admin", "admin/overview", "admin"],
  ["/admin/users", "admin/users", "admin"],
  ["/admin/users/:user", "admin/user", "admin"],
  ["/admin/tasks", "admin/tasks", "admin"],
  ["/admin/events", "admin/events", "admin"],
  ["/admin/log", "admin/log", "admin"],
  ["/admin/audit", "admin/audit", "admin"],
  ["/admin/operations", "admin/operations", "admin"],
];

function match(path) {
  const asked = path.split("/").filter(Boolean);
  for (const [pattern, module, who] of PAGES) {
    const parts = pattern.split("/").filter(Boolean);
    if (parts.length !== asked.length) continue;
    const named = {};
    const fits = parts.every((part, at) => {
      if (!part.startsWith(":")) return part === asked[at];
      named[part.slice(1)] = decodeURIComponent(asked[at]);
      return true;
    });
    if (fits) return { module, who, named };
  }
  return undefined;
}

let leaving = new AbortController();
let seen = 0;

/** How long a page that was begun anew is not begun anew again, in milliseconds. */
const ANEW = 60_000;

/** A page's module. One that cannot be fetched is told as what it is: there is no way to the server. */
async function fetchPage(module) {
  try {
    return await import(`./pages/${module}.js`);
  } catch (error) {
    if (error instanceof TypeError) throw new Trouble(0, undefined);
    // After an update, a page that was open meets modules which do not fit those it has. Begun anew, all of them are of one version.
    if (Date.now() - Number(sessionStorage.getItem("anew")) < ANEW) throw error;
    sessionStorage.setItem("anew", Date.now());
    location.reload();
    return new Promise(() => {});
  }
}

/** Shows the page that the address names. */
async function show({ focus = true } = {}) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  seen += 1;
  const turn = seen;
  const found = match(location.pathname);
  // Whoever is not signed in sees the door, and comes back to where they wanted to be.
  const module = person.user || found?.who === "anyone" ? found?.module : "welcome";
  const main = frame();
  const stillHere = () => turn === seen && !signal.aborted;
  try {
    if (!module) {
      put(main, h("div", { class: "page narrow stack" }, h("h1", { tabindex: "-1" }, w.lost), h("p", {}, w.lostText), h("p", {}, h("a", { href: "/" }, w.home))));
    } else {
      const page = await fetchPage(module);
      if (!stillHere()) return;
      const content = page.render({ ...found?.named, query: new URLSearchParams(location.search), signal });
      put(main, content);
      document.title = page.title ? `${page.title} · ai-hairstyle` : "ai-hairstyle";
    }
  } catch (error) {
    if (!stillHere()) return;
    put(main, failed(error, () => show(), "h1"));
  }
  if (focus) {
    window.scrollTo(0, 0);
    main.querySelector("h1")?.focus({ preventScroll: true });
  }
}

/** Goes to another page of the console. */
export function go(path) {
  history.pushState(null, "", path);
  arrive();
}

/** What the bar tells may have changed since the page before asked: a picture failed, an order was paid. */
function arrive() {
  show();
  if (person.user) recount();
}

document.addEventListener("click", (event) => {
  const anchor = event.target.closest?.("a[href]");
  if (!anchor || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const url = new URL(anchor.href);
  if (url.origin !== location.origin || anchor.target || anchor.hasAttribute("download")) return;
  if (!match(url.pathname) || (url.hash && url.pathname === location.pathname)) return;
  event.preventDefault();
  go(url.pathname + url.search);
});
window.addEventListener("popstate", arrive);
window.addEventListener("go", (event) => go(event.detail));

async function begin() {
  try {
    await meet();
  } catch (error) {
    put(frame(), failed(error, begin, "h1"));
    return;
  }
  // Back from a provider without having been let in.
  const refused = new URLSearchParams(location.search).get("sign_in");
  if (refused) {
    history.replaceState(null, "", location.pathname);
    note(w.notIn[refused] ?? w.notIn.other, 12);
  }
  await show({ focus: false });
  let user = person.user?.id;
  follow(({ user: now }) => {
    if (now?.id === user) return;
    user = now?.id;
    show();
  });
}

begin();
