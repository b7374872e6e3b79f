// Who is here, and what they can spend. Others are told when it changes.

import { get, whenSignedOut } from "./api.js";

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

/** Asks the server. */
export async function meet() {
  const { user, credits } = await get("/auth/session");
  Object.assign(person, { user, credits, known: true });
  changed();
  return person;
}

/** Asks for the balance again, quietly: after something was spent, bought or given back. */
export async function recount() {
  try {
    await meet();
  } catch {
    // The next look will tell.
  }
}

export function setCredits(credits) {
  if (person.credits === credits) return;
  person.credits = credits;
  changed();
}

whenSignedOut(() => {
  if (!person.user) return;
  Object.assign(person, { user: null, credits: 0 });
  changed();
});
