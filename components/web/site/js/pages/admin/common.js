// What the admins' pages share: their own navigation, lists that are read row by row, and who something is about.

import { h, put } from "../../dom.js";
import { clock, date, day, number, relative, time, words } from "../../language.js";
import { announce, button, empty, fill, icon } from "../../parts.js";
import { person, recount } from "../../person.js";

const w = words({
  en: {
    nav: "Admin pages", pages: [["/admin", "Overview"], ["/admin/users", "People"], ["/admin/tasks", "Pictures"], ["/admin/events", "Payments"], ["/admin/log", "Log"], ["/admin/audit", "Books"], ["/admin/operations", "Operations"]],
    forbidden: "This is for admins", forbiddenText: "Your account is not one of an admin. If it should be, ask somebody who is one, or sign in with Google if your address is named in the settings.", home: "To the studio",
    more: "Show more", shown: (n) => `${number(n)} shown.`, added: (n, all) => `${number(n)} more, ${number(all)} shown.`, end: "These are all.",
    credits: (n) => `${number(n)} ${n === 1 ? "credit" : "credits"}`,
  },
  zh: {
    nav: "管理页面", pages: [["/admin", "概览"], ["/admin/users", "用户"], ["/admin/tasks", "图片"], ["/admin/events", "支付"], ["/admin/log", "日志"], ["/admin/audit", "账目"], ["/admin/operations", "运维"]],
    forbidden: "仅限管理员", forbiddenText: "您的账户不是管理员账户。如需权限，请联系管理员；若您的地址已写入设置，请使用 Google 登录。", home: "前往工作室",
    more: "显示更多", shown: (n) => `已显示 ${number(n)} 条。`, added: (n, all) => `新增 ${number(n)} 条，共显示 ${number(all)} 条。`, end: "已全部显示。",
    credits: (n) => `${number(n)} 点`,
  },
});

export const credits = w.credits;

/** A page of the admins': its navigation, its head, and what is below. */
export function page({ here, back, head, text, deeds, body }) {
  const tabs = h("nav", { class: "tabs", "aria-label": w.nav }, w.pages.map(([href, name]) => h("a", { href, "aria-current": href === here && "page" }, name)));
  // On a small screen the tabs are wider than it is, and where one is should be seen.
  requestAnimationFrame(() => {
    const current = tabs.querySelector("[aria-current]");
    if (current) tabs.scrollLeft = current.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - current.offsetWidth) / 2;
  });
  return h(
    "div",
    { class: "page admin" },
    tabs,
    back && h("p", { class: "back small" }, h("a", { href: back[0] }, "← ", back[1])),
    h("div", { class: "head" }, h("div", {}, h("h1", { tabindex: "-1" }, head), text && h("p", {}, text)), deeds && h("div", { class: "row" }, deeds)),
    body,
  );
}

/** Whoever gets an answer here is an admin, perhaps since this moment: then the frame has to know. */
export function admitted() {
  if (person.user && person.user.role !== "admin") recount();
}

/** Fills a box with what becomes of the API's answer. Whoever is not an admin is told so. */
export function load(box, ask, draw, { signal, lines = 4 } = {}) {
  const content = async () => {
    let answer;
    try {
      answer = await ask();
    } catch (error) {
      if (error.code !== "forbidden") throw error;
      if (signal?.aborted) return;
      put(box, forbidden());
      box.querySelector("h1").focus({ preventScroll: true });
      return;
    }
    if (signal?.aborted) return;
    admitted();
    put(box, draw(answer));
  };
  return fill(box, content, { signal, lines });
}

function forbidden() {
  return h("div", { class: "empty no-entry", role: "alert" }, icon("shield"), h("h1", { tabindex: "-1" }, w.forbidden), h("p", {}, w.forbiddenText), h("a", { class: "button", href: "/" }, w.home));
}

/**
 * A table, of columns {head, cell(item), number, slim}. On a narrow screen each row is a card; the roles keep it a table for those who hear it.
 */
export function table(label, columns) {
  const rows = h("tbody", { role: "rowgroup" });
  const element = h(
    "div",
    { class: "sheets", role: "region", "aria-label": label, tabindex: "0" },
    h(
      "table",
      { class: "table", role: "table", "aria-label": label },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, columns.map(({ head, number: figure }) => h("th", { role: "columnheader", scope: "col", class: figure && "number" }, head)))),
      rows,
    ),
  );
  element.add = (items) => {
    const added = items.map((item) => rowOf(columns, item));
    rows.append(...added);
    return added;
  };
  return element;
}

function rowOf(columns, item) {
  const row = h("tr", { role: "row" });
  const draw = (now) =>
    put(
      row,
      columns.map(({ head, cell, number: figure, wide }, at) => {
        const content = cell(now, draw);
        const blank = content === undefined || content === null || content === false || content === "";
        return h("td", { role: "cell", class: [figure && "number", blank && "blank-cell", at === 0 && "first", wide && "wide"].filter(Boolean).join(" ") || undefined, dataset: { head } }, blank ? h("span", { class: "muted", "aria-hidden": "true" }, "–") : h("div", {}, content));
      }),
    );
  draw(item);
  return row;
}

/** A list that grows by pages. `load(cursor)` answers {items, next}; `none()` says in words that there is nothing. */
export function listing({ label, columns, load: page, none, signal }) {
  const box = h("div", { class: "stack" });
  let turn = 0;

  function begin() {
    turn += 1;
    const mine = turn;
    const current = () => mine === turn && !signal?.aborted;
    // What was asked for before may come after what is asked for now.
    const first = async () => {
      try {
        return { page: await page() };
      } catch (error) {
        if (current()) throw error;
        return {};
      }
    };
    return load(box, first, ({ page: answer }) => (current() && answer ? draw(answer, current) : [...box.childNodes]), { signal, lines: 6 });
  }

  function draw({ items, next }, current) {
    if (items.length === 0) {
      const said = none();
      if (turn > 1) announce(said.textContent);
      return said;
    }
    const sheet = table(label, columns);
    const said = h("p", { class: "muted small" });
    let shown = 0;
    let cursor = next;
    const say = (added) => {
      shown += added;
      // The first page is what one came for; what follows was asked for here.
      if (turn > 1 || shown > added) announce(shown === added ? w.shown(shown) : w.added(added, shown));
      put(said, shown === added ? w.shown(shown) : w.added(added, shown), !cursor && shown > added && ` ${w.end}`);
    };
    const more = button(w.more, {
      onclick: async () => {
        const { items: further, next: following } = await page(cursor);
        if (!current()) return;
        const added = sheet.add(further);
        cursor = following;
        more.hidden = !cursor;
        say(added.length);
        // Whoever goes on by keys goes on where the new rows begin.
        if (added[0]) {
          added[0].tabIndex = -1;
          added[0].focus({ preventScroll: true });
        }
      },
    });
    more.hidden = !cursor;
    sheet.add(items);
    say(items.length);
    return [sheet, h("div", { class: "row apart" }, said, more)];
  }

  box.begin = begin;
  begin();
  return box;
}

/** `/path` with what is asked for, and with where a page begins. */
export function ask(path, asked) {
  const query = new URLSearchParams(Object.entries(asked).filter(([, value]) => value !== undefined && value !== null && value !== ""));
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/** The address tells what is shown, so that it can be sent to somebody. */
export function remember(path, asked) {
  history.replaceState(null, "", ask(path, asked));
}

/** Nothing there, in words. */
export const nothing = (head, text, ...more) => empty("empty-inbox", head, text, ...more);

const thisYear = new Date().getFullYear();

/** When something was: how long ago, and the moment. */
export function moment(seconds) {
  if (!seconds) return null;
  const when = new Date(seconds * 1000);
  const said = `${when.getFullYear() === thisYear ? day(seconds) : date(seconds)}, ${clock(seconds)}`;
  return h("time", { class: "moment", datetime: when.toISOString(), title: time(seconds) }, h("span", {}, relative(seconds)), h("span", { class: "muted tiny" }, said));
}

/** A long id, shortened to its end, which is where ids differ. The whole of it is there for those who point at it or copy it. */
export function short(text, length = 8) {
  if (!text) return null;
  return text.length <= length + 1 ? h("code", {}, text) : h("code", { class: "short", title: text }, `…${text.slice(-length)}`);
}

/** Somebody, with the way to their page. */
export function who(userId, email) {
  return h("a", { class: "who", href: `/admin/users/${encodeURIComponent(userId)}` }, email ?? short(userId));
}

/** A duration in a few characters: 0.8 s, 42 s, 3 min. */
export function took(seconds) {
  if (seconds === null || seconds === undefined || seconds < 0) return null;
  if (seconds < 120) return `${number(Math.round(seconds))} s`;
  if (seconds < 7_200) return `${number(Math.round(seconds / 60))} min`;
  return `${number(Math.round(seconds / 3_600))} h`;
}

/** A form that is sent once at a time. `send` may be asynchronous; its errors are its own. */
export function form(props, send, submit, ...children) {
  const element = h("form", { novalidate: true, ...props }, children);
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (submit.getAttribute("aria-busy") === "true") return;
    submit.setAttribute("aria-busy", "true");
    try {
      await send();
    } finally {
      submit.removeAttribute("aria-busy");
    }
  });
  return element;
}

export const submit = (text, kind = "primary") => h("button", { type: "submit", class: `button ${kind}` }, text);

/** A heading and what it heads. */
export function section(head, ...children) {
  return h("section", { class: "stack" }, h("h2", {}, head), children);
}
