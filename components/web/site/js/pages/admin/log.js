// What admins did. Each act names the hash of the one before it, so none can be changed or taken out unnoticed.

import { get } from "../../api.js";
import { h } from "../../dom.js";
import { number, words } from "../../language.js";
import { ask, credits, listing, moment, nothing, page, short, who } from "./common.js";

const w = words({
  en: {
    title: "Log", text: "What admins did, newest first. Each act holds the hash of the one before: whoever changes one breaks the chain, and the audit says so.",
    when: "When", admin: "Who", did: "Did what", whom: "To whom or what", entry: "Entry, hash", settings: "The settings (admin_emails)",
    gift: (n) => `Gave ${n}`, lasts: (days) => `good for ${number(days)} ${days === 1 ? "day" : "days"}`, forever: "without expiry", made: "Made an admin", taken: "Took the role of an admin", replay: (kind) => `Replayed an event${kind ? ` (${kind})` : ""}`, invalidate: "Cleared the cache",
    prefix: (text) => `entries that begin with ${text}`, none: "Nobody has done anything yet", noneText: "Gifts, roles, replays and cleared caches are written here.",
  },
  zh: {
    title: "日志", text: "管理员的操作，最新的在前。每条记录都包含上一条的哈希：任何改动都会破坏链条，审计会发现。",
    when: "时间", admin: "操作者", did: "操作", whom: "对象", entry: "序号与哈希", settings: "系统设置（admin_emails）",
    gift: (n) => `赠送 ${n}`, lasts: (days) => `有效期 ${number(days)} 天`, forever: "永久有效", made: "设为管理员", taken: "取消管理员", replay: (kind) => `重放事件${kind ? `（${kind}）` : ""}`, invalidate: "清空缓存",
    prefix: (text) => `以 ${text} 开头的条目`, none: "还没有任何操作", noneText: "赠送、角色变更、重放和清空缓存会记录在这里。",
  },
});

export const title = w.title;

export function render({ signal }) {
  const list = listing({
    label: w.title,
    columns: [
      { head: w.did, cell: did, wide: true },
      { head: w.whom, cell: whom, wide: true },
      { head: w.admin, cell: (act) => (act.admin_id === "admin_emails" ? h("span", { class: "muted" }, w.settings) : who(act.admin_id, act.admin_email)), wide: true },
      { head: w.when, cell: (act) => moment(act.at) },
      { head: w.entry, cell: (act) => [h("span", {}, `#${number(act.seq)}`), h("br"), h("code", { class: "muted short", title: act.hash }, act.hash.slice(0, 10))] },
    ],
    load: async (cursor) => {
      const { log, next_cursor: next } = await get(ask("/api/admin/log", { limit: 25, cursor }), { signal });
      return { items: log, next };
    },
    none: () => nothing(w.none, w.noneText),
    signal,
  });
  return page({ here: "/admin/log", head: w.title, text: w.text, body: list });
}

function did({ action, detail }) {
  switch (action) {
    case "gift":
      return [h("span", {}, w.gift(credits(detail.credits))), h("p", { class: "small muted" }, detail.lasts ? w.lasts(Math.round(detail.lasts / 86_400)) : w.forever, detail.note && ` · “${detail.note}”`)];
    case "role": return detail.role === "admin" ? w.made : w.taken;
    case "replay": return w.replay(detail.type);
    case "invalidate": return w.invalidate;
    default: return action;
  }
}

function whom({ action, subject, subject_email: email }) {
  if (action === "gift" || action === "role") return who(subject, email);
  if (action === "invalidate") return w.prefix(subject);
  return short(subject);
}
