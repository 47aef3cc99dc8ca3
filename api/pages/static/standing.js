/**
 * The account's status at the top of a page. It is asked for again when the visitor follows a link to pay, and when they
 * return to the page, so that a payment at Razorpay shows by itself. Every text ends in a text node.
 */
const EVERY_MS = 4_000;
const WHILE_PAYING_MS = 15 * 60_000;
const AFTER_RETURN_MS = 60_000;
const $ = (id) => document.getElementById(id);
const box = $("banner");
const waits = document.querySelector("[data-waits]"); // a page of bills or of the wallet: a payment changes it
let until_ms = 0, looking = false;

/** {fingerprint, banner} after the server has asked Razorpay, or null: this must never disturb the page. */
export async function standing() {
  try {
    const answer = await fetch("/account-status", { method: "POST", headers: { accept: "application/json" } });
    const found = answer.ok ? await answer.json() : null;
    if (found) show(found.banner);
    return found;
  } catch {
    return null;
  }
}

function show(banner) {
  if (!box) return;
  box.hidden = !banner;
  box.dataset.state = banner?.state ?? "";
  if (!banner) return;
  $("banner-state").textContent = banner.state;
  $("banner-text").textContent = banner.text;
  const way = $("banner-way");
  way.hidden = !banner.href;
  [way.href, way.textContent, way.target] = [banner.href || "/account", banner.label, banner.away ? "_blank" : ""];
}

/** Whether the page shows something that the answer contradicts. */
function isOld(found, before) {
  return waits ? found.fingerprint !== waits.dataset.waits : before !== "" && (found.banner?.state ?? "") !== before;
}

async function watch(span_ms) {
  until_ms = Math.max(until_ms, Date.now() + span_ms);
  if (looking) return;
  looking = true;
  for (; Date.now() < until_ms; await new Promise((done) => setTimeout(done, EVERY_MS))) {
    const before = box?.dataset.state ?? "";
    const found = document.hidden ? null : await standing();
    if (!found || !isOld(found, before)) continue;
    if (!document.body.matches(".chat")) location.reload();
    break;
  }
  looking = false;
}

const isOpen = () => Boolean(waits || (box && !box.hidden));
document.addEventListener("click", ({ target }) => {
  if (isOpen() && target.closest?.('a[target="_blank"]')) watch(WHILE_PAYING_MS);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && isOpen()) watch(AFTER_RETURN_MS);
});
