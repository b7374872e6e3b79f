// Everybody's pictures: in which state they are, and why they failed. Not the pictures themselves, nor what was asked for: those are their owner's.

import { get } from "../../api.js";
import { h, put } from "../../dom.js";
import { number, words } from "../../language.js";
import { choices, complain, field, note, statusPill } from "../../parts.js";
import { reason } from "../../tasks.js";
import { ask, form, listing, moment, nothing, page, remember, short, submit, took, who } from "./common.js";

const w = words({
  en: {
    title: "Pictures", text: "Everything that was ordered, newest first, by state. The photos and wishes are between their owners and the provider.", filter: "State", all: "All", status: { pending: "Waiting", processing: "In the making", completed: "Done", failed: "Failed" },
    task: "Picture", person: "Person", state: "State", provider: "Provider", attempts: "Attempts", price: "Credits", ordered: "Ordered", took: "Took", cancelled: "Cancelled by its owner.",
    email: "Only of one person", hint: "The whole e-mail address.", search: "Show", everybody: "Show everybody's", only: "Only of", nobody: "Nobody has this address.", none: "No pictures here", noneText: "Nothing that was ordered is in this state.", noneOf: "This person has no pictures in this state.",
  },
  zh: {
    title: "图片", text: "所有订单，最新的在前。照片和要求属于用户与服务商，不在此显示。", filter: "状态", all: "全部", status: { pending: "等待中", processing: "生成中", completed: "已完成", failed: "失败" },
    task: "图片", person: "用户", state: "状态", provider: "服务商", attempts: "尝试", price: "点数", ordered: "下单", took: "用时", cancelled: "用户已取消。",
    email: "仅看某个用户", hint: "请输入完整邮箱地址。", search: "显示", everybody: "显示所有人的", only: "仅看", nobody: "没有此地址的用户。", none: "这里没有图片", noneText: "没有处于此状态的订单。", noneOf: "该用户没有处于此状态的图片。",
  },
});

export const title = w.title;

const STATES = ["pending", "processing", "completed", "failed"];

/** The pictures of somebody, or of everybody. `change(status)` is told what is asked for. */
export function taskList({ userId, status = "", signal, change = () => {} }) {
  let of = status;
  const columns = [
    { head: w.task, cell: (task) => [h("code", {}, task.task_no), task.status === "failed" && h("p", { class: "why small" }, task.failure_reason === "cancelled" ? w.cancelled : reason(task))], wide: true },
    !userId && { head: w.person, cell: (task) => who(task.user_id, task.email), wide: true },
    { head: w.state, cell: (task) => statusPill(task.status) },
    { head: w.attempts, cell: (task) => number(task.attempts), number: true },
    { head: w.took, cell: (task) => (task.completed_at ? took(task.completed_at - task.created_at) : null), number: true },
    { head: w.ordered, cell: (task) => moment(task.created_at) },
    { head: w.price, cell: (task) => number(task.price), number: true },
    { head: w.provider, cell: (task) => task.external_provider && [h("span", {}, task.external_provider), " ", short(task.external_task_id, 6)] },
  ];
  const list = listing({
    label: w.title,
    columns: columns.filter(Boolean),
    load: async (cursor) => {
      const { tasks, next_cursor: next } = await get(ask("/api/admin/tasks", { status: of, user_id: userId, limit: 25, cursor }), { signal });
      return { items: tasks, next };
    },
    none: () => nothing(w.none, userId ? w.noneOf : w.noneText),
    signal,
  });
  const filter = choices(w.filter, [["", w.all], ...STATES.map((state) => [state, w.status[state]])], of, (chosen) => {
    of = chosen;
    change(chosen);
    list.begin();
  });
  return h("div", { class: "stack" }, h("div", { class: "row" }, filter), list);
}

export function render({ query, signal }) {
  const asked = { status: STATES.includes(query.get("status")) ? query.get("status") : "", user_id: query.get("user_id") ?? "" };
  const box = h("div", {});
  const about = h("div", {});

  const draw = (email) => {
    remember("/admin/tasks", asked);
    put(about, asked.user_id ? h("p", { class: "row" }, h("span", {}, `${w.only} `, who(asked.user_id, email)), h("a", { class: "button quiet slim", href: ask("/admin/tasks", { status: asked.status }) }, w.everybody)) : finder());
    put(box, taskList({ userId: asked.user_id || undefined, status: asked.status, signal, change: (status) => ((asked.status = status), remember("/admin/tasks", asked)) }));
  };

  function finder() {
    const input = h("input", { type: "email", autocomplete: "off", spellcheck: "false", inputmode: "email" });
    const labelled = field(w.email, input, { hint: w.hint });
    const go = submit(w.search, "");
    return form({ class: "finder", role: "search" }, async () => {
      labelled.mark("");
      const email = input.value.trim();
      if (!email) return input.focus();
      try {
        const { users } = await get(ask("/api/admin/users", { email }), { signal });
        if (users.length === 0) {
          labelled.mark(w.nobody);
          input.focus();
          return;
        }
        asked.user_id = users[0].id;
        draw(users[0].email);
        note(`${w.only} ${users[0].email}`);
      } catch (error) {
        complain(error);
      }
    }, go, labelled, h("div", { class: "row" }, go));
  }

  if (asked.user_id) get(`/api/admin/users/${encodeURIComponent(asked.user_id)}`, { signal }).then(({ user }) => draw(user.email), () => signal.aborted || draw());
  else draw();
  return page({ here: "/admin/tasks", head: w.title, text: w.text, body: h("div", { class: "stack" }, about, box) });
}
