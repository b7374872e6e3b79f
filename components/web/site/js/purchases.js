// What is for sale and what was bought, in words, as several pages show it.

import { get } from "./api.js";
import { money, number, words } from "./language.js";
import { pill } from "./parts.js";

const w = words({
  en: {
    credits: (n) => `${number(n)} ${n === 1 ? "credit" : "credits"}`,
    plans: { basic: "Basic", pro: "Pro", premium: "Premium" },
    cycles: { monthly: "paid monthly", yearly: "paid yearly" },
    plan: (plan, cycle) => `${plan} plan, ${cycle}`,
    states: {
      pending: "Waiting for payment", paid: "Paid, being booked", processing: "Paid, being booked", completed: "Completed", refunding: "Being refunded",
      refunded: "Refunded", cancelled: "Cancelled", expired: "Not paid in time",
    },
    partly: (sum) => `${sum} refunded`, disputed: "Disputed",
    noTill: "The payment provider cannot be reached right now. Nothing was charged. Try again in a moment.",
  },
  zh: {
    credits: (n) => `${number(n)} 点`,
    plans: { basic: "基础版", pro: "专业版", premium: "高级版" },
    cycles: { monthly: "按月付费", yearly: "按年付费" },
    plan: (plan, cycle) => `${plan}套餐，${cycle}`,
    states: {
      pending: "等待付款", paid: "已付款，入账中", processing: "已付款，入账中", completed: "已完成", refunding: "退款中",
      refunded: "已退款", cancelled: "已取消", expired: "逾期未付款",
    },
    partly: (sum) => `已退款 ${sum}`, disputed: "争议中",
    noTill: "暂时无法连接支付方，没有扣款。请稍后重试。",
  },
});

let shop;
/** Everything for sale: {packs, plans}. Asked for once. */
export function products() {
  shop ??= get("/api/products")
    .then(({ products: all }) => ({ packs: all.filter(({ kind }) => kind === "pack"), plans: all.filter(({ kind }) => kind === "plan") }))
    .catch((error) => {
      shop = undefined;
      throw error;
    });
  return shop;
}

export const credits = w.credits;
/** "Pro", of a plan's type. */
export const planName = (type) => w.plans[type] ?? type;
/** "Pro plan, paid monthly". */
export const planWithCycle = ({ plan_type: type, billing_cycle: cycle }) => w.plan(planName(type), w.cycles[cycle] ?? cycle);

/** What an order is for. A product that is sold no more is named by its credits. */
export function orderName(order, { plans }) {
  const plan = plans.find(({ id }) => id === order.product_id);
  return plan ? planWithCycle(plan) : w.credits(order.credits);
}

const KINDS = { pending: "wait", paid: "wait", processing: "wait", completed: "good", refunding: "wait" };

/** An order's state in words. */
export function orderPill(order) {
  if (order.disputed) return pill(w.disputed, "bad");
  if (order.status === "completed" && order.refunded_amount > 0) return pill(w.partly(money(order.refunded_amount, order.currency)));
  return pill(w.states[order.status] ?? order.status, KINDS[order.status]);
}

/** An error of buying and cancelling: there it is the payment provider that cannot be reached. */
export function atTill(error) {
  return error.code === "provider_unavailable" ? Object.assign(new Error(w.noTill), { words: w.noTill }) : error;
}
