/**
 * The chat page: one message, one streamed answer, and plain words when there is none.
 *
 * Who asks is the session's cookie, which no script sees. Every text from outside ends in a text node (`markdown.js`
 * makes elements of it, never markup). What was said stays in this tab's sessionStorage until it is closed or the visitor
 * signs out. What a message used is best effort: when it cannot be known for sure, nothing is shown.
 */
import { readEvents } from "./sse.js";
import { render } from "./markdown.js";

const SILENCE_MS = 45_000; // the server breaks silence every 15 s: three missed beats are a dead line
const SETTLE_WAITS_MS = [0, 500, 1500, 3000]; // a stopped answer is in the books a moment after it was stopped
const HEAD_START_MS = 250; // how long a message waits for the look into the books that goes before it
const LOW_SHARE = 0.1; // of a window's limit, from which on the line about what is left warns
const MOST_KEPT = 50; // turns that outlive a reload
const NUMBERS = document.documentElement.dataset.numbers; // the locale that groups digits as the other pages do
const $ = (id) => document.getElementById(id);
const { visitor, admin } = $("main").dataset;
const SHELF = `naka.chat.${visitor}`;
let running = null; // the AbortController of the answer that is being written
let opensAt_ms = 0, ticker = 0; // the server said when to come back: nothing is sent before

/* What went wrong, and what to do next. Status 0 is ours: a line that broke, not an answer. */
const WORDS = {
  0: "The connection broke off. Check your network, then send again.",
  401: "Your session has ended. Sign in again: your message is kept.",
  402: admin ? "Your plan does not cover this. Check the subscription and its open bills."
             : "Your plan does not cover this. Ask your admin to check the subscription.",
  403: "This key has no access to chat. Sign in with another key, or ask your admin for one.",
  413: "This message is too long. Shorten it and send it again.",
  429: "Too many requests at once. Try again in a moment.",
  502: "Claude did not answer. Send it again.",
  503: "Claude is busy. Try again.",
  504: "Claude took too long to answer. Send it again.",
};

function wordsFor(status, code) {
  if (code === "limit_reached") return `You have reached your limit.${opensAt_ms ? ` You can send again ${clock(opensAt_ms)}.` : ""}`;
  if (code === "blocked") return "No requests are allowed right now. Ask your admin.";
  if (code === "held") return "Your other answers are still being written. You can send again in a moment.";
  return WORDS[status] ?? (status < 500 ? "This message was not accepted. Change it and send it again."
                                        : "Something went wrong on our side. Send it again.");
}

function clock(at_ms) {
  const at = new Date(at_ms);
  const time = `at ${at.toLocaleTimeString([], { hour: "numeric", minute: "2-digit" })}`;
  return at.toDateString() === new Date().toDateString() ? time : `on ${at.toLocaleDateString([], { weekday: "long", day: "numeric", month: "long" })} ${time}`;
}

function span(left_ms) {
  const s = Math.ceil(left_ms / 1000);
  const [size, unit, part, of] = s < 3600 ? [60, "min", 1, "s"] : s < 86_400 ? [3600, "h", 60, "min"] : [86_400, "d", 3600, "h"];
  return s < 60 ? `${s} s` : `${Math.floor(s / size)} ${unit} ${Math.floor((s % size) / part)} ${of}`;
}

/* Where to go from here, by what went wrong: [path, words]. */
const WAYS = {
  401: ["/sign-in?next=%2F", "Sign in"],
  402: admin && ["/account", "See your account"],
  403: ["/sign-in?next=%2F", "Sign in with another key"],
  429: admin && ["/account/plan", "See the plans"],
};

function notice(text = "", more = "", way = null) {
  $("notice").hidden = !text;
  $("notice-text").textContent = text;
  $("notice-more").textContent = more;
  $("notice-way").hidden = !way;
  if (way) [$("notice-way").firstElementChild.href, $("notice-way").firstElementChild.textContent] = way;
}

function reopen() {
  clearInterval(ticker);
  opensAt_ms = 0;
  $("timer").textContent = "";
  notice();
  refresh();
}

function wait(seconds) {
  opensAt_ms = Date.now() + seconds * 1000;
  const tick = () => {
    const left_ms = opensAt_ms - Date.now();
    if (left_ms > 0) return void ($("timer").textContent = `Ready in ${span(left_ms)}`);
    reopen();
    $("status").textContent = "You can send again.";
  };
  ticker = setInterval(tick, 500);
  tick();
}

function explain({ status, code, detail, retryAfter_s, request_id: id }) {
  reopen();
  if (retryAfter_s > 0) wait(retryAfter_s);
  const more = status < 500 ? detail : id && `Reference ${id}`; // what the reader can mend, or what support asks for
  notice(wordsFor(status, code), status === 401 ? "" : more, code === "limit_reached" || status !== 429 ? WAYS[status] : null);
  refresh();
}

/* What was said, kept for a reload of this tab. Where the browser has storage turned off, nothing is. */
const shelf = {
  read: () => { try { return JSON.parse(sessionStorage.getItem(SHELF)) ?? {}; } catch { return {}; } },
  write: (kept) => { try { sessionStorage.setItem(SHELF, JSON.stringify(kept)); } catch { /* full or turned off: see above */ } },
};
const turns = [];

function keep() {
  const kept = turns.slice(-MOST_KEPT).map(({ article, asked, text, meta }) => (
    { asked, text, meta: meta.textContent, low: meta.classList.contains("low"), ended: article.dataset.state === "ended" }));
  shelf.write({ turns: kept, draft: $("message").value });
}

function restore() {
  const { turns: kept = [], draft = "" } = shelf.read();
  for (const { asked, text, meta, low, ended } of kept) {
    const turn = addTurn(asked);
    turn.text = text;
    write(turn);
    turn.article.dataset.state = "ended";
    turn.meta.textContent = ended ? meta : "The answer broke off here.";
    turn.meta.classList.toggle("low", Boolean(low));
  }
  setMessage($("message").value || draft); // whoever typed before this script was there keeps their words
}

/* One message */
async function send() {
  const message = $("message").value;
  if (running || Date.now() < opensAt_ms || !message.trim()) return;
  reopen();
  running = new AbortController();
  const turn = addTurn(message);
  setMessage("");
  $("message").focus();
  $("status").textContent = "Claude is answering.";
  const before = read("/v1/usage");
  try {
    // A quick answer may be in the books before a look that went out with it; a slow look must not keep the answer.
    await Promise.race([before, new Promise((go) => setTimeout(go, HEAD_START_MS))]);
    await stream(message, turn);
    if (!turn.text) turn.meta.textContent = "Claude gave no answer to this.";
    $("status").textContent = turn.text || turn.meta.textContent; // read out whole, not in pieces
  } catch (error) {
    const stopped = running.signal.aborted;
    $("status").textContent = stopped ? "Stopped." : "";
    if (stopped || turn.text) turn.meta.textContent = stopped ? "Stopped." : "The answer broke off here.";
    else drop(turn);
    if (!stopped && !$("message").value) setMessage(message);
    if (!stopped) explain(error.problem ?? { status: 0 });
  }
  write(turn);
  turn.article.dataset.state = "ended";
  running = null;
  refresh();
  keep();
  if (turn.article.isConnected) await account(turn, before);
}

async function stream(message, turn) {
  const headers = { "Content-Type": "application/json", "Accept": "text/event-stream" };
  const response = await fetch("/chat", { method: "POST", headers, body: JSON.stringify({ message }), signal: running.signal });
  const retryAfter_s = Number(response.headers.get("Retry-After"));
  if (!response.ok) throw failure({ ...parsed(await response.text()), status: response.status, retryAfter_s });
  let ended = false;
  for await (const { type, data } of readEvents(response.body, SILENCE_MS)) {
    if (type === "error") throw failure({ status: 502, ...parsed(data) });
    ended ||= type === "done"; // the one end that means the answer is whole, and in the books
    if (type !== "message") continue;
    turn.article.dataset.state = "streaming";
    turn.text += data;
    draw(turn);
  }
  if (!ended) throw failure({ status: 0 });
}

const failure = (problem) => Object.assign(new Error(problem.title), { problem });
const parsed = (json) => { try { return JSON.parse(json); } catch { return {}; } };

/* What it used, and what is left */
async function account(turn, before) {
  const was = await before;
  let now = null, messages = 0;
  for (const wait_ms of was ? SETTLE_WAITS_MS : []) {
    await new Promise((go) => setTimeout(go, wait_ms));
    now = await read("/v1/usage");
    messages = now ? now.totals.requests - was.totals.requests : 0;
    if (messages !== 0 || !now) break;
  }
  // Two messages at once (another tab, the same user) cannot be told apart: then only what is left is shown.
  const used = messages === 1 ? tokens(now.totals) - tokens(was.totals) : 0;
  const left = tightest(await read("/v1/limits"));
  const low = left && left.remaining <= left.limit * LOW_SHARE;
  const parts = [
    used > 0 && `This message used ${used.toLocaleString(NUMBERS)} tokens`,
    left && `${Math.max(0, left.remaining).toLocaleString(NUMBERS)} ${used > 0 ? "" : "tokens "}left ${spanOf(left)}`,
  ].filter(Boolean).join("; ");
  turn.meta.textContent = [turn.meta.textContent, parts + (low ? `. More ${clock(Date.parse(left.resets_at))}` : "")].filter(Boolean).join(" ");
  turn.meta.classList.toggle("low", Boolean(low));
  sayLeft(left);
  keep();
  follow();
}

const spanOf = (left) => (left.window === "day" ? "today" : "this period");

function sayLeft(left) {
  $("left").textContent = left ? `${Math.max(0, left.remaining).toLocaleString(NUMBERS)} of ${left.limit.toLocaleString(NUMBERS)} tokens left ${spanOf(left)}` : "";
}

/** JSON of a GET, or null: these reads only adorn the answer and must never disturb it. */
const read = (path) => fetch(path, { cache: "no-store" })
  .then((response) => (response.ok ? response.json() : null)).catch(() => null);

const tokens = (u) => u.input_tokens + u.output_tokens + u.cache_read_tokens + u.cache_write_5m_tokens + u.cache_write_1h_tokens;

/** The token window that ends first: 5,000 left today is no comfort when the period has 200. */
const tightest = (limits) => (limits?.windows ?? [])
  .filter((w) => w.meter === "tokens" && w.window !== "minute" && Number.isFinite(w.remaining))
  .sort((a, b) => a.remaining - b.remaining)[0];

/* The page itself */
function addTurn(message) {
  const article = $("turn").content.cloneNode(true).firstElementChild;
  article.dataset.state = "waiting";
  article.querySelector(".asked").textContent = message;
  $("thread").append(article);
  atEnd = true;
  follow();
  const turn = { article, asked: message, text: "", answer: article.querySelector(".answer"), meta: article.querySelector(".meta") };
  turns.push(turn);
  $("clear").hidden = false;
  return turn;
}

function drop(turn) {
  turn.article.remove();
  turns.splice(turns.indexOf(turn), 1);
  $("clear").hidden = !turns.length;
}

/** At most once a frame, however many pieces came. */
function draw(turn) {
  turn.frame ??= requestAnimationFrame(() => write(turn));
}

function write(turn) {
  if (turn.frame) cancelAnimationFrame(turn.frame);
  turn.frame = undefined;
  turn.answer.replaceChildren(render(turn.text));
  follow();
}

let atEnd = true; // false while the reader has scrolled up: then the page does not pull them down
let height = 0, lastTop = 0;
const follow = () => requestAnimationFrame(() => {
  if (!atEnd) return;
  $("thread").scrollTop = $("thread").scrollHeight;
  lastTop = $("thread").scrollTop;
});
new ResizeObserver(() => { height = $("thread").clientHeight; follow(); }).observe($("thread")); // a notice, a phone's keyboard

function refresh() {
  $("send").hidden = running !== null;
  $("stop").hidden = running === null;
  $("send").disabled = Date.now() < opensAt_ms || !$("message").value.trim();
}

function setMessage(text = $("message").value) {
  $("message").value = text;
  $("message").style.height = "auto";
  $("message").style.height = `${$("message").scrollHeight}px`;
  refresh();
}

$("composer").onsubmit = (event) => { event.preventDefault(); send(); };
$("stop").onclick = () => { running?.abort(); $("message").focus(); };
$("message").oninput = () => setMessage();
$("clear").onclick = () => { running?.abort(); for (const turn of [...turns]) drop(turn); reopen(); keep(); $("message").focus(); };
$("message").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // composing: Enter picks a word of an IME
  event.preventDefault();
  send();
};
$("thread").onscroll = ({ target: t }) => { // a scroll that only came of a new height is not the reader's
  // Nor did the reader leave the end when it moved on: since our own scroll to it, more may have been written.
  const wentUp = t.scrollTop < lastTop;
  lastTop = t.scrollTop;
  if (t.clientHeight === height) atEnd = t.scrollHeight - t.scrollTop - height < 48 || (atEnd && !wentUp);
};
addEventListener("pagehide", keep); // an answer under way is kept as far as it came
document.querySelector(".who")?.addEventListener("submit", () => { // signed out: nothing stays for whoever comes next
  removeEventListener("pagehide", keep);
  try { sessionStorage.removeItem(SHELF); } catch { /* see above */ }
});

restore();
$("message").focus();
read("/v1/limits").then((limits) => sayLeft(tightest(limits)));
