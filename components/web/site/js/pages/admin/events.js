// The inbox of payment events: what the payment provider told, and what became of it.

import { get, post } from "../../api.js";
import { h } from "../../dom.js";
import { number, words } from "../../language.js";
import { button, choices, note, pill } from "../../parts.js";
import { ask, listing, moment, nothing, page, remember, short, took } from "./common.js";

const w = words({
  en: {
    title: "Payment events", text: "Everything the payment provider told us, newest first. An event that nothing fits yet stays open and is tried again, ever more rarely.", filter: "State", all: "All",
    status: { received: "Open", done: "Done", ignored: "Ignored" }, event: "Event", state: "State", outcome: "Outcome", deliveries: "Came", tries: "Tried again", received: "Received", processed: "Dealt with", atOnce: "at once", later: (text) => `${text} later`, deed: "Replay", times: (n) => `${number(n)} ×`,
    kinds: { "checkout.completed": "Paid", "refund.created": "Refund", "dispute.created": "Dispute", "subscription.active": "Plan begins", "subscription.paid": "Plan paid", "subscription.canceled": "Plan cancelled", "subscription.scheduled_cancel": "Plan will end", "subscription.past_due": "Plan behind with payment", "subscription.unpaid": "Plan unpaid", "subscription.expired": "Plan ended", "subscription.trialing": "Plan on trial", "subscription.update": "Plan changed", "subscription.paused": "Plan paused" },
    outcomes: { applied: "applied", "not paid": "not paid, so nothing follows", "unknown type": "of a kind that means nothing to us" },
    replay: "Replay", replayLabel: (kind) => `Replay the event ${kind}`, nowDone: "Replayed: it was applied.", nowIgnored: "Replayed: nothing follows from it, so it was ignored.", stillOpen: "Replayed: nothing of ours fits it yet. It stays open and will be tried again.",
    none: "No events here", noneText: { "": "Nothing has come from the payment provider yet.", received: "Every event was dealt with.", done: "No event was applied yet.", ignored: "No event was ignored." },
  },
  zh: {
    title: "支付事件", text: "支付服务商发来的所有消息，最新的在前。暂时无法对应的事件会保持未处理，并以越来越长的间隔重试。", filter: "状态", all: "全部",
    status: { received: "未处理", done: "已处理", ignored: "已忽略" }, event: "事件", state: "状态", outcome: "结果", deliveries: "送达", tries: "重试", received: "收到", processed: "处理", atOnce: "立即", later: (text) => `${text}后`, deed: "重放", times: (n) => `${number(n)} 次`,
    kinds: { "checkout.completed": "已付款", "refund.created": "退款", "dispute.created": "争议", "subscription.active": "订阅开始", "subscription.paid": "订阅已付款", "subscription.canceled": "订阅已取消", "subscription.scheduled_cancel": "订阅将结束", "subscription.past_due": "订阅逾期", "subscription.unpaid": "订阅未付款", "subscription.expired": "订阅已结束", "subscription.trialing": "订阅试用中", "subscription.update": "订阅已变更", "subscription.paused": "订阅已暂停" },
    outcomes: { applied: "已生效", "not paid": "未付款，无需处理", "unknown type": "未知类型，无需处理" },
    replay: "重放", replayLabel: (kind) => `重放事件 ${kind}`, nowDone: "已重放：事件已生效。", nowIgnored: "已重放：无需处理，已忽略。", stillOpen: "已重放：暂时无法对应，保持未处理，稍后会再次尝试。",
    none: "这里没有事件", noneText: { "": "支付服务商还没有发来消息。", received: "所有事件都已处理。", done: "还没有生效的事件。", ignored: "没有被忽略的事件。" },
  },
});

export const title = w.title;

const STATES = ["received", "done", "ignored"];
const KIND = { received: "wait", done: "good", ignored: "" };
/** Events of a page. This list goes by offset: what comes meanwhile moves it, so an event may show twice, and none is left out. */
const PAGE = 25;

export function render({ query, signal }) {
  let status = STATES.includes(query.get("status")) ? query.get("status") : "";
  const list = listing({
    label: w.title,
    columns: [
      { head: w.event, cell: (event) => [h("strong", {}, w.kinds[event.type] ?? event.type), h("p", { class: "small muted" }, w.kinds[event.type] && [h("code", {}, event.type), " "], short(event.id))], wide: true },
      { head: w.state, cell: (event) => pill(w.status[event.status], KIND[event.status]) },
      { head: w.outcome, cell: (event) => event.outcome && (w.outcomes[event.outcome] ?? event.outcome) },
      { head: w.deliveries, cell: (event) => w.times(event.deliveries), number: true },
      { head: w.tries, cell: (event) => event.attempts > 0 && w.times(event.attempts), number: true },
      { head: w.received, cell: (event) => moment(event.received_at) },
      { head: w.processed, cell: (event) => event.processed_at && (event.processed_at - event.received_at < 2 ? w.atOnce : w.later(took(event.processed_at - event.received_at))) },
      { head: w.deed, cell: (event, draw) => event.status === "received" && button(w.replay, { icon: "again", "aria-label": w.replayLabel(event.type), onclick: (_, pressed) => replay(event, draw, pressed.closest("tr")) }) },
    ],
    load: async (offset = 0) => {
      const { events } = await get(ask("/api/admin/events", { status, limit: PAGE, offset }), { signal });
      return { items: events, next: events.length === PAGE ? offset + PAGE : null };
    },
    none: () => nothing(w.none, w.noneText[status]),
    signal,
  });
  const filter = choices(w.filter, [["", w.all], ...STATES.map((state) => [state, w.status[state]])], status, (chosen) => {
    status = chosen;
    remember("/admin/events", { status });
    list.begin();
  });
  return page({ here: "/admin/events", head: w.title, text: w.text, body: h("div", { class: "stack" }, h("div", { class: "row" }, filter), list) });
}

async function replay({ id }, draw, row) {
  const { event } = await post(`/api/admin/events/${encodeURIComponent(id)}/replay`);
  draw(event);
  // The button was drawn anew, or has nothing left to do.
  row.tabIndex = -1;
  (row.querySelector("button") ?? row).focus({ preventScroll: true });
  note(event.status === "done" ? w.nowDone : event.status === "ignored" ? w.nowIgnored : w.stillOpen);
}
