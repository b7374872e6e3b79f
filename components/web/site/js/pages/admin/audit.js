// Whether the books are right: every rule, how many rows it is about, and which break it.

import { get } from "../../api.js";
import { h } from "../../dom.js";
import { number, time, words } from "../../language.js";
import { button, icon, pill } from "../../parts.js";
import { load, page, table } from "./common.js";

const w = words({
  en: {
    title: "Books", text: "Every rule of the books, checked against every row, now. The rules are kept by the database itself; this looks from outside.", again: "Check again",
    right: "The books are right", rightText: (rules, rows) => `${number(rules)} rules hold over ${number(rows)} rows.`, wrong: (n) => (n === 1 ? "One rule is broken" : `${number(n)} rules are broken`),
    wrongText: "This should never happen: somebody may have written to the database by hand. Stop and look before anything else is done; the rows are named below.", at: (when) => `Checked ${when}.`,
    groups: [["Credits", /^(I1|I2|I6b)/], ["Pictures", /^(I3|I5b)/], ["Orders and plans", /^(I4|I5a|I6a)/], ["People and admins", /^(I7|L)/], ["What should have ended by now", /^O/], ["Others", /./]],
    id: "Rule", rule: "What must hold", looked: "Rows looked at", result: "Result", holds: "Holds", broken: (n) => `${number(n)} ${n === 1 ? "row breaks" : "rows break"} it`, rows: "The rows", more: (n) => `and ${number(n)} more`, head: "The log ends with",
    rules: {
      I1a: "No lot of credits is overdrawn or overfilled, and each holds what its rows say.", I1b: "Every row of the ledger belongs to a lot of the same owner and expiry.", I2a: "The unexpired rows add up to what the unexpired lots hold, at every moment past and to come.", I2b: "Everybody's balance is what their lots held when it was written.",
      I3a: "A picture's charges minus returns are its price, and nothing once it failed.", I3b: "The ledger moved for each picture what its consumptions say.", I4a: "Each paid order of a pack has exactly its grant, any other order none.", I4b: "Each paid order of a plan has its subscription.",
      I4c: "A plan's payment grants its months in turn, and never more in all than it was for.", I4d: "Credits follow the money: what is to be taken back fits what was refunded or disputed.", I5a: "An order has a time of payment if it was paid and only then, and is refunded if all its money went back and only then.", I5b: "A completed order has its pictures until its owner goes, any other none.",
      I7a: "Of whoever is erased nothing is left but money.", I7b: "Every gift in the admins' log is in the books.", I7c: "Every gift in the books is an act in the admins' log.", I7d: "Every admin was made one by an act in the admins' log, the last about their role.",
      I6a: "An event that is dealt with has the time of that, an open one has none.", I6b: "Nothing (order, month of a plan, sign-up, gift) was granted twice.", O1: "No picture is unfinished an hour after it was ordered.", O2: "No order is pending for more than two days.", O3: "No payment event is open for more than a day.", O4: "No month of a running plan is due for more than a day.",
      L1: "The admins' log is a chain, and each act is as it was written.",
    },
  },
  zh: {
    title: "账目", text: "对所有数据逐条检查账目规则。规则由数据库自身保证，这里从外部核对。", again: "重新检查",
    right: "账目正确", rightText: (rules, rows) => `${number(rules)} 条规则在 ${number(rows)} 行数据上全部成立。`, wrong: (n) => `${number(n)} 条规则被违反`,
    wrongText: "这不应该发生：可能有人直接修改了数据库。请先停下来查看，相关行列在下面。", at: (when) => `检查时间：${when}。`,
    groups: [["点数", /^(I1|I2|I6b)/], ["图片", /^(I3|I5b)/], ["订单与订阅", /^(I4|I5a|I6a)/], ["用户与管理员", /^(I7|L)/], ["早该结束的事项", /^O/], ["其他", /./]],
    id: "规则", rule: "必须成立的内容", looked: "检查行数", result: "结果", holds: "成立", broken: (n) => `${number(n)} 行违反`, rows: "相关行", more: (n) => `另有 ${number(n)} 行`, head: "日志末尾",
    rules: {
      I1a: "没有一批点数被透支或超额，每批余额与其记录一致", I1b: "每条账目记录都属于同一用户、同一有效期的一批点数", I2a: "任何时刻，未过期的记录之和等于未过期批次的余额", I2b: "用户余额与其写入时各批点数之和一致",
      I3a: "任务的扣款减去退款等于其价格，失败的任务为零", I3b: "账本对每个任务的变动与其消费记录一致", I4a: "每个已付款的点数包订单恰好发放一次，其他订单不发放", I4b: "每个已付款的订阅订单都有对应的订阅",
      I4c: "订阅付款按月发放，总数从不超过其应得", I4d: "点数随款项走：应收回的与退款或争议相符", I5a: "订单有付款时间当且仅当已付款，标为已退款当且仅当全额退回", I5b: "完成的任务在其用户离开前保有图片，其他任务没有",
      I7a: "已注销的用户只留下款项记录", I7b: "管理日志中的每份赠送都在账目中", I7c: "账目中的每份赠送都在管理日志中", I7d: "每位管理员都由日志中的操作授予，且是关于其角色的最后一条",
      I6a: "已处理的事件有处理时间，未处理的没有", I6b: "没有任何业务键（订单、订阅月、注册、赠送）被发放两次", O1: "没有任务在下单一小时后仍未结束", O2: "没有订单待付款超过两天", O3: "没有支付事件超过一天未处理", O4: "进行中的订阅没有超过一天未发放的月份",
      L1: "管理日志是完整的链，每条记录与写入时一致",
    },
  },
});

export const title = w.title;

export function render({ signal }) {
  const body = h("div", { class: "stack loose", "aria-live": "polite" });
  const check = () => load(body, () => get("/api/admin/audit", { signal }), draw, { signal, lines: 10 });
  check();
  return page({ here: "/admin/audit", head: w.title, text: w.text, deeds: button(w.again, { icon: "again", onclick: check }), body });
}

function draw({ clean, rules }) {
  const broken = rules.filter(({ violations }) => violations > 0);
  const rows = rules.reduce((sum, { looked_at: n }) => sum + n, 0);
  const left = new Set(rules);
  const groups = w.groups.map(([name, which]) => {
    const of = [...left].filter(({ id: rule }) => which.test(rule));
    of.forEach((rule) => left.delete(rule));
    return [name, of.sort((a, b) => b.violations - a.violations)];
  });
  return [
    h(
      "div",
      { class: `verdict ${clean ? "good" : "bad"}` },
      h("span", { class: "seal", "aria-hidden": "true" }, icon(clean ? "check" : "close")),
      h("div", {}, h("h2", {}, clean ? w.right : w.wrong(broken.length)), h("p", {}, clean ? w.rightText(rules.length, rows) : w.wrongText), h("p", { class: "small" }, w.at(time(Date.now() / 1000)))),
    ),
    groups.filter(([, of]) => of.length > 0).map(([name, of]) => group(name, of)),
  ];
}

function group(name, rules) {
  const sheet = table(name, [
    { head: w.rule, cell: (rule) => [inWords(rule), rule.head && h("p", { class: "small muted" }, `${w.head} `, h("code", { title: rule.head }, rule.head.slice(0, 16))), rule.violations > 0 && offenders(rule)], wide: true },
    { head: w.id, cell: (rule) => h("code", {}, rule.id) },
    { head: w.looked, cell: (rule) => number(rule.looked_at), number: true },
    { head: w.result, cell: (rule) => (rule.violations > 0 ? pill(w.broken(rule.violations), "bad") : pill(w.holds, "good")) },
  ]);
  sheet.classList.add("rules");
  sheet.add(rules);
  return h("section", { class: "stack tight" }, h("h2", {}, name), sheet);
}

function inWords({ id: rule, rule: text }) {
  return h("span", {}, w.rules[rule] ?? `${text[0].toUpperCase()}${text.slice(1)}.`);
}

function offenders({ violations, offenders: shown }) {
  return h("details", { class: "offenders" }, h("summary", {}, w.rows), h("ul", { class: "small" }, shown.map((row) => h("li", {}, h("code", {}, row))), violations > shown.length && h("li", {}, w.more(violations - shown.length))));
}
