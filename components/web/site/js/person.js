// Who is here, and what they can spend. Others are told when it changes.

import { get, signedOut, whenSignedOut } from "./api.js";
import { note } from "./parts.js";

const listeners = new Set();
export const person = { user: null, credits: 0, known: false };

/** Calls back now and at every change, until the signal ends it. */
export function follow(callback, signal) {
  listeners.add(callback);
  signal?.addEventListener("abort", () => listeners.delete(callback));
  callback(person);
}

function changed() {
  listeners.forEach((callback) => callback(person));
}

let asked = 0;

/** Asks the server. */
export async function meet() {
  asked += 1;
  const turn = asked;
  const { user, credits } = await get("/auth/session");
  // Whoever asked later knows better.
  if (turn !== asked) return person;
  if (person.user && !user) note(signedOut, 12);
  Object.assign(person, { user, credits, known: true });
  changed();
  return person;
}

/** Asks for the balance again, quietly: after something was spent, bought or given back. Answers whether it is known now; if not, the next look will tell. */
export async function recount() {
  try {
    await meet();
    return true;
  } catch {
    return false;
  }
}

// Pictures fail and orders are paid while one looks elsewhere.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && person.user) recount();
});

export function setCredits(credits) {
  // An answer that is still under way was counted before this.
  asked += 1;
  if (person.credits === credits) return;
  person.credits = credits;
  changed();
}

whenSignedOut(() => {
  if (!person.user) return;
  asked += 1;
  note(signedOut, 12);
  Object.assign(person, { user: null, credits: 0 });
  changed();
});
