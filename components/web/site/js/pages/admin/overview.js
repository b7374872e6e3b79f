// How the product does: what needs somebody first, then the figures.

import { get } from "../../api.js";
import { h } from "../../dom.js";
import { money, number, relative, time, words } from "../../language.js";
import { button, icon, pill } from "../../parts.js";
import { credits, load, page, section } from "./common.js";
import { days, gauge, parts, ranks } from "./plots.js";

const w = words({
  en: {
    title: "Admin", head: "How it goes", at: (when) => `As of ${when}. The figures are kept for a minute.`, again: "Look again",
    well: "Nothing needs you: no open alarms, no open payment events, no failed jobs, no errors in the last hour.",
    alarms: (n) => `${number(n)} open ${n === 1 ? "alarm" : "alarms"}`, events: (n) => `${number(n)} payment ${n === 1 ? "event is" : "events are"} still open`, failing: (names) => `The last run failed: ${names}`, errors: (n) => `${number(n)} failed ${n === 1 ? "request" : "requests"} in the last hour`,
    look: "Look", pictures: "Pictures", people: "People and credits", money: "Money", operation: "Operation",
    perDay: "Pictures a day", perDayText: "ordered in 14 days", rate: "of what ended came out well", noRate: "Nothing ended in 24 hours.",
    today: "Today, against the limit", ofLimit: (n) => `of ${number(n)} pictures (UTC day)`, noLimit: "pictures today; there is no limit", running: (n) => `${number(n)} in the making now`,
    day: "Success rate in 24 hours", status: { completed: "Done", processing: "In the making", pending: "Waiting", failed: "Failed" },
    users: "People", usersText: (n) => `${number(n)} new in 24 hours`, newUsers: "New people", creditsHead: "Credits", held: "held by people, to be spent", granted: "Granted in 24 hours", spent: "Spent in 24 hours",
    revenue: (currency) => `Revenue in ${currency}`, in24: (n) => `in 24 hours, ${number(n)} ${n === 1 ? "payment" : "payments"}`, in30: "In 30 days", payments: "Payments in 30 days", refunded: "Refunded of these", noRevenue: "No payments in the last 30 days.", paid: "Paid",
    orders: "Orders in 24 hours", order: { pending: "Not paid yet", completed: "Paid", refunded: "Refunded", cancelled: "Cancelled", expired: "Expired", paid: "Paid", processing: "In the making", refunding: "Refunding" }, noOrders: "No orders in 24 hours.",
    plans: "Plans", plan: { active: "Active", cancelled: "Cancelled, still running", expired: "Ended" }, noPlans: "Nobody has had a plan yet.",
    open: "Open now", openEvents: (n) => `payment ${n === 1 ? "event" : "events"}`, toInbox: "To the inbox",
    errorsHead: "Failed requests by component", errorsText: "in the last hour", noErrors: "None in the last hour.", openAlarms: (n) => (n === 1 ? "alarm" : "alarms"), toAlarms: "To the alarms",
    jobs: "Scheduled jobs", jobNames: { alarms: "Alarms", backup: "Backup", cleanup: "Cleanup", reconcile: "Payments", tasks: "Pictures" }, never: "has not run yet", outcome: { done: "Done", failed: "Failed", running: "Running", cut_off: "Cut off" },
  },
  zh: {
    title: "管理", head: "运行概况", at: (when) => `数据时间：${when}，每分钟更新一次。`, again: "刷新",
    well: "一切正常：没有未解除的警报、未处理的支付事件、失败的任务，最近一小时也没有错误。",
    alarms: (n) => `${number(n)} 个未解除的警报`, events: (n) => `${number(n)} 个支付事件尚未处理`, failing: (names) => `最近一次运行失败：${names}`, errors: (n) => `最近一小时有 ${number(n)} 个请求失败`,
    look: "查看", pictures: "图片", people: "用户与点数", money: "收入", operation: "运维",
    perDay: "每日图片", perDayText: "十四天内下单", rate: "的图片成功完成", noRate: "最近 24 小时没有结束的图片。",
    today: "今日用量与上限", ofLimit: (n) => `上限 ${number(n)} 张（UTC 日）`, noLimit: "今日图片，无上限", running: (n) => `正在生成 ${number(n)} 张`,
    day: "24 小时成功率", status: { completed: "已完成", processing: "生成中", pending: "等待中", failed: "失败" },
    users: "用户", usersText: (n) => `24 小时内新增 ${number(n)} 人`, newUsers: "新用户", creditsHead: "点数", held: "用户持有、尚未使用", granted: "24 小时内发放", spent: "24 小时内使用",
    revenue: (currency) => `收入（${currency}）`, in24: (n) => `24 小时内，${number(n)} 笔付款`, in30: "30 天内", payments: "30 天付款笔数", refunded: "其中已退款", noRevenue: "最近 30 天没有付款。", paid: "已付",
    orders: "24 小时内的订单", order: { pending: "未付款", completed: "已付款", refunded: "已退款", cancelled: "已取消", expired: "已过期", paid: "已付款", processing: "处理中", refunding: "退款中" }, noOrders: "最近 24 小时没有订单。",
    plans: "订阅", plan: { active: "有效", cancelled: "已取消，仍在期内", expired: "已结束" }, noPlans: "还没有人订阅。",
    open: "待处理", openEvents: () => "个支付事件", toInbox: "前往收件箱",
    errorsHead: "各组件失败请求", errorsText: "最近一小时", noErrors: "最近一小时没有。", openAlarms: () => "个警报", toAlarms: "前往警报",
    jobs: "定时任务", jobNames: { alarms: "警报", backup: "备份", cleanup: "清理", reconcile: "支付", tasks: "图片" }, never: "尚未运行", outcome: { done: "完成", failed: "失败", running: "运行中", cut_off: "中断" },
  },
});

export const title = w.title;

const JOBS = ["tasks", "reconcile", "cleanup", "backup", "alarms"];

export function render({ signal }) {
  const body = h("div", { class: "stack loose" });
  const look = () => load(body, () => get("/api/admin/overview", { signal }), draw, { signal, lines: 8 });
  look();
  return page({ here: "/admin", head: w.head, deeds: button(w.again, { icon: "again", onclick: look }), body });
}

function draw(figures) {
  const today = Math.floor(figures.at / 86_400);
  return [
    attention(figures),
    section(w.pictures, h("div", { class: "tiles" }, pictures(figures.tasks, today))),
    section(w.money, h("div", { class: "tiles" }, earnings(figures.money, today))),
    section(w.people, h("div", { class: "tiles" }, people(figures.people, today))),
    section(w.operation, h("div", { class: "tiles" }, operation(figures))),
    h("p", { class: "muted small" }, w.at(time(figures.at))),
  ];
}

/** What somebody should look at, or that there is nothing. */
function attention({ money: { open_events: events }, operation: { open_alarms: alarms, errors_last_hour: errors, jobs } }) {
  const failed = jobs.filter(({ outcome }) => outcome === "failed" || outcome === "cut_off").map(({ job }) => w.jobNames[job] ?? job);
  const errorCount = Object.values(errors).reduce((sum, n) => sum + n, 0);
  const items = [
    alarms > 0 && ["bad", w.alarms(alarms), "/admin/operations"],
    events > 0 && ["wait", w.events(events), "/admin/events?status=received"],
    failed.length > 0 && ["bad", w.failing(failed.join(", ")), "/admin/operations"],
    errorCount > 0 && ["wait", w.errors(errorCount)],
  ].filter(Boolean);
  if (items.length === 0) return h("p", { class: "say good" }, icon("check"), w.well);
  return h("ul", { class: "stack tight" }, items.map(([kind, text, href]) => h("li", { class: `say apart ${kind}` }, h("span", {}, text), href && h("a", { href, "aria-label": `${w.look}: ${text}` }, w.look))));
}

function tile(head, ...children) {
  return h("article", { class: "card tile" }, h("h3", {}, head), children);
}

function figure(value, text) {
  return h("p", { class: "says" }, h("strong", { class: "big number" }, value), text && h("span", { class: "muted small" }, text));
}

function pictures(tasks, today) {
  const of = (day, ...statuses) => tasks.by_day.reduce((sum, entry) => (entry.day === day && statuses.includes(entry.status) ? sum + entry.number : sum), 0);
  const ordered = tasks.by_day.reduce((sum, entry) => sum + entry.number, 0);
  const { pictures: made, limit } = tasks.spend_today;
  const lately = tasks.last_24h;
  return [
    tile(
      w.perDay,
      figure(number(ordered), w.perDayText),
      days({
        caption: w.perDay,
        today,
        series: [
          { name: w.status.completed, kind: "good", of: (day) => of(day, "completed") },
          { name: w.status.failed, kind: "bad", of: (day) => of(day, "failed") },
          { name: w.status.processing, kind: "wait", of: (day) => of(day, "processing", "pending") },
        ],
      }),
    ),
    tile(
      w.day,
      tasks.success_rate_24h === null ? h("p", { class: "muted small" }, w.noRate) : figure(`${number(Math.round(tasks.success_rate_24h * 1_000) / 10)} %`, w.rate),
      parts([["completed", "good"], ["failed", "bad"], ["processing", "wait"], ["pending", "edge"]].map(([status, kind]) => ({ name: w.status[status], kind, value: lately[status] ?? 0, href: `/admin/tasks?status=${status}` }))),
    ),
    tile(w.today, gauge(made, limit, limit ? w.ofLimit(limit) : w.noLimit), h("p", { class: "muted small centred" }, w.running(tasks.running))),
  ];
}

function earnings({ revenue, by_day: byDay, orders_24h: orders, subscriptions }, today) {
  const currencies = Object.keys(revenue);
  return [
    currencies.map((currency) => {
      const of = revenue[currency];
      return tile(
        w.revenue(currency),
        figure(money(of.paid_24h, currency), w.in24(of.payments_24h)),
        days({ caption: w.revenue(currency), today, tell: (cents) => money(cents, currency), series: [{ name: w.paid, kind: "accent", of: (day) => byDay.filter((entry) => entry.day === day && entry.currency === currency).reduce((sum, entry) => sum + entry.paid, 0) }] }),
        h("dl", { class: "facts" }, fact(w.in30, money(of.paid_30d, currency)), fact(w.payments, number(of.payments_30d)), fact(w.refunded, money(of.refunded_30d, currency))),
      );
    }),
    currencies.length === 0 && tile(w.money, h("p", { class: "muted small" }, w.noRevenue)),
    tile(w.orders, counted(orders, { completed: "good", pending: "wait", refunded: "bad" }, w.order, w.noOrders)),
    tile(w.plans, counted(subscriptions, { active: "good", cancelled: "wait", expired: "edge" }, w.plan, w.noPlans)),
  ];
}

/** Numbers by state. */
function counted(by, kinds, names, none) {
  const states = Object.keys(kinds).concat(Object.keys(by).filter((state) => !(state in kinds))).filter((state) => by[state]);
  if (states.length === 0) return h("p", { class: "muted small" }, none);
  const whole = states.reduce((sum, state) => sum + by[state], 0);
  return [figure(number(whole)), parts(states.map((state) => ({ name: names[state] ?? state, kind: kinds[state] ?? "edge", value: by[state] })))];
}

function people(of, today) {
  const joined = new Map(of.by_day.map(({ day, new_users: n }) => [day, n]));
  return [
    tile(w.users, figure(number(of.users), w.usersText(of.new_users_24h)), days({ caption: w.newUsers, today, series: [{ name: w.newUsers, kind: "accent", of: (day) => joined.get(day) ?? 0 }] })),
    tile(
      w.creditsHead,
      figure(number(of.credits_outstanding), w.held),
      ranks([
        { name: w.granted, value: of.credits_granted_24h, text: credits(of.credits_granted_24h), kind: "good" },
        { name: w.spent, value: of.credits_spent_24h, text: credits(of.credits_spent_24h) },
      ]),
    ),
  ];
}

function operation({ at, money: { open_events: events }, operation: { open_alarms: alarms, errors_last_hour: errors, jobs } }) {
  const failing = Object.entries(errors).map(([name, value]) => ({ name: h("code", {}, name), value, kind: "bad" })).sort((a, b) => b.value - a.value);
  const last = new Map(jobs.map((run) => [run.job, run]));
  return [
    tile(
      w.open,
      figure(number(alarms), w.openAlarms(alarms)),
      h("p", { class: "small" }, h("a", { class: "to", href: "/admin/operations" }, w.toAlarms)),
      figure(number(events), w.openEvents(events)),
      h("p", { class: "small" }, h("a", { class: "to", href: events ? "/admin/events?status=received" : "/admin/events" }, w.toInbox)),
    ),
    tile(w.errorsHead, failing.length === 0 ? h("p", { class: "muted small" }, w.noErrors) : [figure(number(failing.reduce((sum, { value }) => sum + value, 0)), w.errorsText), ranks(failing)]),
    tile(
      w.jobs,
      h(
        "ul",
        { class: "list small" },
        JOBS.map((job) => {
          const run = last.get(job);
          const kind = { done: "good", running: "wait" };
          return h("li", {}, h("span", {}, w.jobNames[job]), h("span", { class: "row tight" }, run ? [h("span", { class: "muted" }, relative(run.started_at, Math.max(at, run.started_at))), pill(w.outcome[run.outcome] ?? run.outcome, kind[run.outcome] ?? "bad")] : h("span", { class: "muted" }, w.never)));
        }),
      ),
    ),
  ];
}

function fact(term, text) {
  return [h("dt", {}, term), h("dd", { class: "number" }, text)];
}
