// One person: their figures, their ways in, their pictures; credits as a gift, and their role.

import { Trouble, get, post, wish } from "../../api.js";
import { h, put } from "../../dom.js";
import { date, number, time, words } from "../../language.js";
import { ask as confirm, button, complain, field, note } from "../../parts.js";
import { person, recount } from "../../person.js";
import { credits, form, load, page, section, short, submit } from "./common.js";
import { taskList } from "./tasks.js";
import { rolePill } from "./users.js";

const w = words({
  en: {
    title: "Person", back: "All people", since: (when) => `here since ${when}`, erased: "This account was deleted by its owner. What was paid stays in the books.",
    balance: "Credits to spend", used: "Credits used", ordered: "Pictures ordered", done: "Done", failed: "Failed", ways: "Ways to sign in", added: (when) => `since ${when}`, noWays: "None is left.", id: "Id", tasks: "Pictures",
    gift: "Gift credits", giftText: "They are there at once. The gift is an act in the log, with your name.", amount: "Credits", amountHint: "1 to 10,000", days: "Expire in days", daysHint: "Empty: never", note: "Note", noteHint: "Why. The person sees it in their account book. It stays when they delete their account: nothing personal.", give: "Give credits",
    amountWrong: "A whole number from 1 to 10,000.", daysWrong: "A whole number from 1 to 3,650, or nothing.", noteWrong: "At most 200 characters on one line.",
    given: (n, name) => `${name} has ${n} more.`, safe: "Press again: however often it is sent, this gift is given once.", other: "A gift from this form arrived before, with other numbers. Look at the balance; to give this one as well, press again.",
    role: "Role", isAdmin: "Admins see people, pictures, payments and the books, and may give credits and roles.", isUser: "Sees and changes nothing but what is their own.", make: "Make an admin", take: "Take the role away",
    makeHead: (name) => `Make ${name} an admin?`, makeText: "They will see everybody's address, pictures' states and payments, and may give credits and roles. It is written in the log.",
    takeHead: (name) => `Take the role of an admin from ${name}?`, takeText: "They can no longer open these pages. Whoever is named in the settings (admin_emails) gets the role back at the next visit.", self: "This is you: you would not be able to undo it.",
    made: (name) => `${name} is an admin now.`, taken: (name) => `${name} is no admin any more.`,
  },
  zh: {
    title: "用户", back: "所有用户", since: (when) => `${when} 注册`, erased: "此账户已由本人注销，付款记录仍保留在账目中。",
    balance: "可用点数", used: "已用点数", ordered: "图片订单", done: "完成", failed: "失败", ways: "登录方式", added: (when) => `${when} 添加`, noWays: "没有登录方式。", id: "编号", tasks: "图片",
    gift: "赠送点数", giftText: "立即到账，并以您的名义记入日志。", amount: "点数", amountHint: "1 至 10,000", days: "有效天数", daysHint: "留空表示永久有效", note: "备注", noteHint: "赠送原因，对方可在账单中看到。账户注销后仍会保留，请勿填写个人信息。", give: "赠送",
    amountWrong: "请输入 1 至 10,000 的整数。", daysWrong: "请输入 1 至 3,650 的整数，或留空。", noteWrong: "最多 200 字，一行以内。",
    given: (n, name) => `${name} 增加了 ${n}。`, safe: "请再按一次：无论发送多少次，这份赠送只会发放一次。", other: "此表单之前的一份赠送已到账，但数值不同。请先查看余额；如仍要赠送，请再按一次。",
    role: "角色", isAdmin: "管理员可查看用户、图片、支付和账目，并可赠送点数和授予角色。", isUser: "只能查看和修改自己的内容。", make: "设为管理员", take: "取消管理员",
    makeHead: (name) => `将 ${name} 设为管理员？`, makeText: "对方将能看到所有人的地址、图片状态和支付，并可赠送点数和授予角色。此操作会记入日志。",
    takeHead: (name) => `取消 ${name} 的管理员角色？`, takeText: "对方将无法再打开这些页面。若其地址写在设置（admin_emails）中，下次访问时会重新获得该角色。", self: "这是您自己：之后您将无法撤销。",
    made: (name) => `${name} 现在是管理员。`, taken: (name) => `${name} 不再是管理员。`,
  },
});

export const title = w.title;

const MOST_CREDITS = 10_000;
const MOST_DAYS = 3_650;
const MOST_NOTE = 200;
const PROVIDERS = { google: "Google", github: "GitHub" };

export function render({ user: userId, signal }) {
  const body = h("div", { class: "stack loose" });
  const path = `/api/admin/users/${encodeURIComponent(userId)}`;
  const head = h("span", {}, w.title);
  load(body, () => get(path, { signal }), (answer) => draw(answer, { path, head, signal }), { signal, lines: 6 });
  return page({ here: "/admin/users", back: ["/admin/users", w.back], head, body });
}

function draw(answer, { path, head, signal }) {
  const view = { ...answer, path, signal };
  put(head, view.user.name);
  const card = h("div", { class: "stack" });
  const role = h("section", { class: "card stack" });
  view.role = role;
  view.redraw = () => {
    put(card, about(view));
    put(role, roleOf(view));
  };
  view.refresh = async () => {
    Object.assign(view, await get(path, { signal }));
    view.redraw();
    if (view.user.id === person.user?.id) recount();
  };
  view.redraw();
  const gone = view.user.email.endsWith("@erased.invalid");
  return [
    card,
    gone ? h("p", { class: "say" }, w.erased) : h("div", { class: "columns" }, gift(view), h("div", { class: "stack" }, role, ways(view))),
    section(w.tasks, taskList({ userId: view.user.id, signal })),
  ];
}

function about({ user, stats }) {
  return [
    h("p", { class: "row" }, h("span", { class: "who" }, user.email), rolePill(user.role), h("span", { class: "muted small" }, w.since(date(user.created_at))), h("span", { class: "muted small" }, `${w.id} `, short(user.id, 12))),
    h(
      "dl",
      { class: "vitals" },
      [[w.balance, user.credits], [w.used, stats.credits_used], [w.ordered, stats.total_tasks], [w.done, stats.completed_tasks], [w.failed, stats.failed_tasks]].map(([term, value]) => h("div", { class: "card" }, h("dt", { class: "muted small" }, term), h("dd", { class: "big number" }, number(value)))),
    ),
  ];
}

function ways({ identities }) {
  return h(
    "section",
    { class: "card" },
    h("h2", {}, w.ways),
    identities.length === 0 ? h("p", { class: "muted small" }, w.noWays) : h("ul", { class: "list" }, identities.map(({ provider, created_at: at }) => h("li", {}, h("strong", {}, PROVIDERS[provider] ?? provider), h("span", { class: "muted small" }, w.added(time(at)))))),
  );
}

function gift(view) {
  const amount = h("input", { type: "text", inputmode: "numeric", autocomplete: "off" });
  const lasts = h("input", { type: "text", inputmode: "numeric", autocomplete: "off" });
  const why = h("input", { type: "text", maxlength: MOST_NOTE, autocomplete: "off" });
  const fields = {
    credits: field(w.amount, amount, { hint: w.amountHint }),
    expires_in_days: field(w.days, lasts, { hint: w.daysHint }),
    note: field(w.note, why, { hint: w.noteHint }),
  };
  const said = h("p", { class: "say", role: "status", hidden: true });
  const say = (text, kind = "") => {
    said.className = `say ${kind}`;
    said.textContent = text;
    said.hidden = !text;
  };
  // The name of this gift, whatever it takes to send it. The next one gets a name of its own when this one has arrived.
  let key = wish();

  async function give() {
    const wanted = { credits: whole(amount.value), expires_in_days: whole(lasts.value), note: why.value.trim() || undefined };
    const wrong = {
      credits: within(wanted.credits, MOST_CREDITS) ? "" : w.amountWrong,
      expires_in_days: wanted.expires_in_days === undefined || within(wanted.expires_in_days, MOST_DAYS) ? "" : w.daysWrong,
      note: (wanted.note?.length ?? 0) <= MOST_NOTE ? "" : w.noteWrong,
    };
    for (const [name, text] of Object.entries(wrong)) fields[name].mark(text);
    const first = Object.keys(wrong).find((name) => wrong[name]);
    if (first) {
      fields[first].querySelector("input").focus();
      return;
    }
    say("");
    try {
      await post("/api/admin/gifts", { json: { user_id: view.user.id, key, ...wanted } });
      key = wish();
      say(w.given(credits(wanted.credits), view.user.name), "good");
      for (const input of [amount, lasts, why]) input.value = "";
      // It was given, whether or not the page can tell what it led to.
      view.refresh().catch(complain);
    } catch (error) {
      if (error.code === "conflict") {
        // The gift before did arrive, and its answer was lost.
        key = wish();
        say(w.other, "wait");
        view.refresh().catch(complain);
        return;
      }
      for (const { field: name, message } of error instanceof Trouble ? error.errors : []) fields[name]?.mark(message);
      say(`${error.words ?? error.message}${error.status === 0 || error.status >= 500 ? ` ${w.safe}` : ""}`, "bad");
    }
  }

  const button = submit(w.give);
  return h("section", { class: "card stack" }, h("h2", {}, w.gift), h("p", { class: "muted small" }, w.giftText), form({ class: "stack" }, give, button, h("div", { class: "pairs" }, fields.credits, fields.expires_in_days), fields.note, said, h("div", { class: "row" }, button)));
}

/** What was typed as a whole number: nothing is undefined, and nonsense NaN. */
function whole(text) {
  const digits = text.trim().replaceAll(/[,\s]/g, "");
  if (!digits) return undefined;
  return /^\d+$/.test(digits) ? Number(digits) : NaN;
}

const within = (value, most) => value >= 1 && value <= most;

function roleOf(view) {
  const { user } = view;
  const admin = user.role === "admin";
  const change = async () => {
    await confirm({
      head: admin ? w.takeHead(user.name) : w.makeHead(user.name),
      text: admin ? `${w.takeText}${user.id === person.user?.id ? ` ${w.self}` : ""}` : w.makeText,
      yes: admin ? w.take : w.make,
      danger: admin,
      act: async () => {
        ({ user: view.user } = await post(`${view.path}/role`, { json: { role: admin ? "user" : "admin" } }));
        note(admin ? w.taken(user.name) : w.made(user.name));
        view.redraw();
        if (user.id === person.user?.id) recount();
      },
    });
    // The button that was pressed has made room for the other one.
    view.role.querySelector("button").focus();
  };
  return [h("h2", {}, w.role), h("p", { class: "row" }, rolePill(user.role), h("span", { class: "muted small" }, admin ? w.isAdmin : w.isUser)), h("div", { class: "row" }, button(admin ? w.take : w.make, { kind: admin ? "danger" : "", onclick: change }))];
}
