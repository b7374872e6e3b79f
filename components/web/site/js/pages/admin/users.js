// People: who there is, newest first, or who has an address.

import { get } from "../../api.js";
import { h } from "../../dom.js";
import { number, words } from "../../language.js";
import { button, field, pill } from "../../parts.js";
import { ask, form, listing, moment, nothing, page, remember, short, submit, who } from "./common.js";

const w = words({
  en: {
    title: "People", text: "Everybody who has an account, newest first.", email: "E-mail address", hint: "The whole address.", search: "Search", all: "Show everybody",
    name: "Name", role: "Role", balance: "Credits", since: "Since", id: "Id", admin: "Admin", user: "User", none: "Nobody has this address", noneText: "Addresses are found whole: look for a typing error. Whoever deleted their account cannot be found by their address any more.", empty: "Nobody is here yet", emptyText: "Whoever signs in appears here.",
  },
  zh: {
    title: "用户", text: "所有账户，最新的在前。", email: "邮箱地址", hint: "请输入完整地址。", search: "搜索", all: "显示所有人",
    name: "姓名", role: "角色", balance: "点数", since: "注册时间", id: "编号", admin: "管理员", user: "用户", none: "没有此地址的用户", noneText: "请输入完整地址并检查拼写。已注销的用户无法再按地址找到。", empty: "还没有用户", emptyText: "登录的用户会出现在这里。",
  },
});

export const title = w.title;

export const rolePill = (role) => (role === "admin" ? pill(w.admin, "accent") : pill(w.user));

export function render({ query, signal }) {
  let email = query.get("email") ?? "";
  const input = h("input", { type: "email", value: email, autocomplete: "off", spellcheck: "false", inputmode: "email" });
  const everybody = button(w.all, { kind: "quiet", hidden: !email, onclick: () => find("") });

  const list = listing({
    label: w.title,
    columns: [
      { head: w.email, cell: (user) => who(user.id, user.email), wide: true },
      { head: w.name, cell: (user) => user.name },
      { head: w.role, cell: (user) => rolePill(user.role) },
      { head: w.balance, cell: (user) => number(user.credits), number: true },
      { head: w.since, cell: (user) => moment(user.created_at) },
      { head: w.id, cell: (user) => short(user.id) },
    ],
    load: async (cursor) => {
      const { users, next_cursor: next } = await get(ask("/api/admin/users", { email, limit: 25, cursor }), { signal });
      return { items: users, next: email ? null : next };
    },
    none: () => (email ? nothing(w.none, w.noneText) : nothing(w.empty, w.emptyText)),
    signal,
  });

  function find(wanted) {
    email = wanted.trim();
    input.value = email;
    everybody.hidden = !email;
    remember("/admin/users", { email });
    return list.begin();
  }

  const go = submit(w.search, "");
  const search = form({ class: "finder", role: "search" }, () => find(input.value), go, field(w.email, input, { hint: w.hint }), h("div", { class: "row" }, go, everybody));
  return page({ here: "/admin/users", head: w.title, text: w.text, body: h("div", { class: "stack" }, search, list) });
}
