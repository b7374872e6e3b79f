// What keeps it running: alarms, scheduled jobs, the cache.

import { get, post } from "../../api.js";
import { h } from "../../dom.js";
import { number, words } from "../../language.js";
import { ask as confirm, button, choices, field, note, pill } from "../../parts.js";
import { ask, form, listing, load, moment, nothing, page, section, submit, table, took } from "./common.js";

const w = words({
  en: {
    title: "Operations", text: "Alarms, the scheduled jobs, and the cache.", state: "State", open: "Open", closed: "Over", all: "All",
    alarms: "Alarms", alarm: "Alarm", told: "Told", times: (n) => (n === 0 ? "not yet" : `${number(n)} ×`), begun: "Began", seen: "Last seen", over: "Over since", noAlarms: "No alarms", noAlarmsText: { open: "All is well: nothing is wrong right now.", closed: "No alarm has come to its end yet.", "": "Nothing was ever wrong." },
    kinds: { store_down: "A store is down", error_rate: "Many requests fail", provider_out_of_credits: "The provider's account is empty", provider_refuses_key: "A provider refuses our key", provider_left_alone: "A service is left alone for a while", daily_limit_reached: "The day's limit is reached", overdue: "Something should have ended", audit_violated: "A rule of the books is broken", job_late: "A job is late", job_failing: "A job keeps failing", erasure_cut_off: "An erasure was cut off", cleanup_doubts: "The cleanup leaves too much alone", results_lost: "Paid pictures have lost their files", alarms_failing: "The look itself fails" },
    jobs: "Scheduled jobs", job: "Job", outcome: "Outcome", outcomes: { done: "Done", failed: "Failed", running: "Running", cut_off: "Cut off" }, started: "Began", lasted: "Took", report: "Report", noReport: "Nothing to tell.", noRuns: "No runs yet", noRunsText: "A scheduler calls the jobs; nobody has called this one so far.",
    jobNames: { alarms: "Alarms", backup: "Backup", cleanup: "Cleanup", reconcile: "Payments", tasks: "Pictures" },
    cache: "Cache", cacheText: "The database is the truth: what is taken out of the cache comes back when it is asked for. Nobody is signed out and nothing is lost; answers are slower for a while.", keys: (n) => `${number(n)} ${n === 1 ? "entry" : "entries"}`, kind: "Kind", entries: "Entries", deed: "Clear", empty: "Clear", emptyOne: (kind) => `Clear ${kind}`, noKeys: "The cache is empty", noKeysText: "It fills as people use the product.",
    cacheKinds: { session: "Sessions that were looked up", "task:result": "Pictures' states", config: "Settings and figures", "config:admin": "Figures of the overview", breaker: "Services that are left alone", temp: "The last look at the stores" },
    emptyHead: (prefix) => `Clear “${prefix}”?`, emptyText: "All entries that begin like this are taken out. It is written in the log.", emptied: (n) => `${number(n)} ${n === 1 ? "entry was" : "entries were"} taken out.`,
    prefix: "Clear by prefix", prefixHint: "For example task:result:", prefixWrong: "1 to 200 visible characters, without spaces.",
  },
  zh: {
    title: "运维", text: "警报、定时任务和缓存。", state: "状态", open: "未解除", closed: "已解除", all: "全部",
    alarms: "警报", alarm: "警报", told: "通知", times: (n) => (n === 0 ? "尚未" : `${number(n)} 次`), begun: "开始", seen: "最近出现", over: "解除", noAlarms: "没有警报", noAlarmsText: { open: "一切正常，目前没有问题。", closed: "还没有已解除的警报。", "": "从未出现过问题。" },
    kinds: { store_down: "存储不可用", error_rate: "大量请求失败", provider_out_of_credits: "服务商账户余额不足", provider_refuses_key: "服务商拒绝我们的密钥", provider_left_alone: "某项服务暂停调用", daily_limit_reached: "已达每日上限", overdue: "有事项逾期未结束", audit_violated: "账目规则被违反", job_late: "任务迟到", job_failing: "任务持续失败", erasure_cut_off: "注销中断", cleanup_doubts: "清理发现异常，已暂停删除", results_lost: "已付费图片的文件丢失", alarms_failing: "检查本身失败" },
    jobs: "定时任务", job: "任务", outcome: "结果", outcomes: { done: "完成", failed: "失败", running: "运行中", cut_off: "中断" }, started: "开始", lasted: "用时", report: "报告", noReport: "无内容。", noRuns: "尚未运行", noRunsText: "任务由调度器调用，目前还没有人调用过。",
    jobNames: { alarms: "警报", backup: "备份", cleanup: "清理", reconcile: "支付", tasks: "图片" },
    cache: "缓存", cacheText: "以数据库为准：从缓存中移除的内容会在需要时重新写入。没有人会被登出，也不会丢失任何内容，只是响应会暂时变慢。", keys: (n) => `${number(n)} 条`, kind: "类型", entries: "条目", deed: "清空", empty: "清空", emptyOne: (kind) => `清空 ${kind}`, noKeys: "缓存为空", noKeysText: "随着产品的使用，缓存会逐渐填充。",
    cacheKinds: { session: "查询过的会话", "task:result": "图片状态", config: "设置与数据", "config:admin": "概览数据", breaker: "暂停调用的服务", temp: "最近一次存储检查" },
    emptyHead: (prefix) => `清空“${prefix}”？`, emptyText: "所有以此开头的条目都会被移除，并记入日志。", emptied: (n) => `已移除 ${number(n)} 条。`,
    prefix: "按前缀清空", prefixHint: "例如 task:result:", prefixWrong: "1 至 200 个可见字符，不含空格。",
  },
});

export const title = w.title;

const JOBS = ["tasks", "reconcile", "cleanup", "backup", "alarms"];
const OUTCOME = { done: "good", running: "wait", failed: "bad", cut_off: "bad" };

export function render({ signal }) {
  return page({
    here: "/admin/operations",
    head: w.title,
    text: w.text,
    body: h("div", { class: "stack loose" }, section(w.alarms, alarms(signal)), section(w.jobs, jobs(signal)), section(w.cache, cache(signal))),
  });
}

function alarms(signal) {
  let state = "open";
  const list = listing({
    label: w.alarms,
    columns: [
      { head: w.alarm, cell: (alarm) => [h("strong", {}, w.kinds[alarm.kind] ?? alarm.kind), " ", h("code", { class: "muted" }, alarm.subject), h("p", { class: "small muted" }, alarm.message)], wide: true },
      { head: w.state, cell: (alarm) => (alarm.closed_at ? pill(w.closed, "good") : pill(w.open, "bad")) },
      { head: w.told, cell: (alarm) => w.times(alarm.told), number: true },
      { head: w.begun, cell: (alarm) => moment(alarm.opened_at) },
      { head: w.seen, cell: (alarm) => moment(alarm.seen_at) },
      { head: w.over, cell: (alarm) => moment(alarm.closed_at) },
    ],
    load: async (cursor) => {
      const { alarms: items, next_cursor: next } = await get(ask("/api/admin/alarms", { state, limit: 10, cursor }), { signal });
      return { items, next };
    },
    none: () => (state === "open" ? h("p", { class: "say good" }, w.noAlarmsText.open) : nothing(w.noAlarms, w.noAlarmsText[state])),
    signal,
  });
  const filter = choices(w.alarms, [["open", w.open], ["closed", w.closed], ["", w.all]], state, (chosen) => {
    state = chosen;
    list.begin();
  });
  return h("div", { class: "stack" }, h("div", { class: "row" }, filter), list);
}

function jobs(signal) {
  let job = "";
  const list = listing({
    label: w.jobs,
    columns: [
      { head: w.job, cell: (run) => h("strong", {}, w.jobNames[run.job] ?? run.job) },
      { head: w.outcome, cell: (run) => pill(w.outcomes[run.outcome] ?? run.outcome, OUTCOME[run.outcome]) },
      { head: w.report, cell: (run) => report(run.report), wide: true },
      { head: w.lasted, cell: (run) => (run.report?.ms === undefined ? run.ended_at && took(run.ended_at - run.started_at) : run.report.ms < 1_000 ? `${number(run.report.ms)} ms` : took(run.report.ms / 1_000)), number: true },
      { head: w.started, cell: (run) => moment(run.started_at) },
    ],
    load: async (cursor) => {
      const { runs, next_cursor: next } = await get(ask("/api/admin/jobs", { job, limit: 10, cursor }), { signal });
      return { items: runs, next };
    },
    none: () => nothing(w.noRuns, w.noRunsText),
    signal,
  });
  const filter = choices(w.jobs, [["", w.all], ...JOBS.map((name) => [name, w.jobNames[name]])], job, (chosen) => {
    job = chosen;
    list.begin();
  });
  return h("div", { class: "stack" }, h("div", { class: "row" }, filter), list);
}

/** A job's report as its numbers: `tasks.looked_at 3`. What is zero is of no interest. */
function report(of) {
  const found = [];
  const walk = (value, path) => {
    if (value && typeof value === "object") for (const [name, inner] of Object.entries(value)) walk(inner, [...path, name]);
    else if (value !== 0 && value !== null && value !== false && !(path.length === 1 && path[0] === "ms")) found.push([path.join("."), value]);
  };
  walk(of ?? {}, []);
  if (found.length === 0) return h("span", { class: "muted small" }, w.noReport);
  return h("ul", { class: "report tiny" }, found.map(([name, value]) => h("li", {}, h("code", { class: "muted" }, name), " ", h("code", {}, typeof value === "number" ? number(value) : String(value)))));
}

function cache(signal) {
  const box = h("div", {});
  const count = () => load(box, () => get("/api/admin/cache", { signal }), draw, { signal });

  async function empty(prefix) {
    const act = async () => {
      const { deleted } = await post("/api/admin/cache/invalidate", { json: { prefix } });
      note(w.emptied(deleted));
    };
    if (await confirm({ head: w.emptyHead(prefix), text: w.emptyText, yes: w.empty, danger: true, act })) await count();
  }

  function draw({ total_keys: total, keys_by_prefix: kinds }) {
    const rows = Object.entries(kinds).sort(([, a], [, b]) => b - a);
    if (rows.length === 0) return nothing(w.noKeys, w.noKeysText);
    const sheet = table(w.cache, [
      { head: w.kind, cell: ([kind]) => [h("code", {}, `${kind}:`), w.cacheKinds[kind] && h("p", { class: "small muted" }, w.cacheKinds[kind])], wide: true },
      { head: w.entries, cell: ([, n]) => number(n), number: true },
      { head: w.deed, cell: ([kind]) => button(w.empty, { kind: "danger", "aria-label": w.emptyOne(kind), onclick: () => empty(`${kind}:`) }) },
    ]);
    sheet.add(rows);
    return h("div", { class: "stack" }, h("p", {}, w.keys(total)), sheet);
  }

  const input = h("input", { type: "text", autocomplete: "off", spellcheck: "false", maxlength: 200 });
  const labelled = field(w.prefix, input, { hint: w.prefixHint });
  const go = submit(w.empty, "danger");
  const byPrefix = form({ class: "finder" }, async () => {
    const prefix = input.value.trim();
    const fits = /^[\x21-\x7e]{1,200}$/.test(prefix);
    labelled.mark(fits ? "" : w.prefixWrong);
    if (!fits) return input.focus();
    await empty(prefix);
  }, go, labelled, h("div", { class: "row" }, go));
  count();
  return h("div", { class: "stack" }, h("p", { class: "muted small" }, w.cacheText), box, byPrefix);
}
