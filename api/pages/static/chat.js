/**
 * The chat page: one message, one streamed answer, and plain words when there is none.
 *
 * The key lives in its field and in sessionStorage, nowhere else. Every text from outside goes into a text node,
 * never through markup. What a message used is best effort: when it cannot be known for sure, nothing is shown.
 */
import { readEvents } from "./sse.js";

const SILENCE_MS = 45_000; // the server breaks silence every 15 s: three missed beats are a dead line
const SETTLE_WAITS_MS = [0, 500, 1500, 3000]; // a stopped answer is in the books a moment after it was stopped
const HEAD_START_MS = 250; // how long a message waits for the look into the books that goes before it
const LOW_SHARE = 0.1; // of a window's limit, from which on the line about what is left warns
const $ = (id) => document.getElementById(id);
let running = null; // the AbortController of the answer that is being written
let opensAt_ms = 0, ticker = 0; // the server said when to come back: nothing is sent before

/* What went wrong, and what to do next. Status 0 is ours: a line that broke, not an answer. */
const WORDS = {
  0: "The connection broke off. Check your network, then send again.",
  401: "This key was not accepted. Check that you copied all of it, or ask for a new one.",
  402: "Your plan does not cover this right now. Ask whoever looks after billing to check the subscription.",
  403: "This key may not be used for this chat. Use another key, or ask for one that may.",
  413: "This message is too long. Shorten it and send it again.",
  429: "That was a lot at once. You can send again in a moment.",
  502: "Claude did not answer. Send it again.",
  503: "The service is not available right now. Send it again shortly.",
  504: "Claude took too long to answer. Send it again.",
};

function wordsFor(status, code) {
  if (code === "limit_reached") return `You have reached your limit.${opensAt_ms ? ` You can send again ${clock(opensAt_ms)}.` : ""}`;
  if (code === "blocked") return "No requests are allowed right now. Ask whoever looks after your account.";
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

function notice(text = "", more = "") {
  $("notice").hidden = !text;
  $("notice-text").textContent = text;
  $("notice-more").textContent = more;
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
  notice(wordsFor(status, code), status === 401 ? "" : more);
  refresh();
  if (status === 401) askForKey();
}

/* The key. Where the browser has storage turned off, its field still holds it. */
const store = (key) => { try { sessionStorage.setItem("naka.key", key); } catch { /* see above */ } };
const stored = () => { try { return sessionStorage.getItem("naka.key") ?? ""; } catch { return ""; } };

function keyGiven() {
  const key = $("key").value.trim();
  if (/^[\x21-\x7e]+$/.test(key)) return key; // anything else cannot travel in a header
  notice(key ? "This key holds a character that no key has. Copy it again." : "Enter your API key first.");
  return askForKey();
}

function askForKey() {
  showKeyPanel(true);
  $("key").ariaInvalid = "true";
  $("key").focus();
}

function showKeyPanel(shown) {
  $("key-panel").hidden = !shown;
  $("key-toggle").setAttribute("aria-expanded", String(shown));
  $("key-toggle").textContent = shown ? "Done" : "API key";
  $("key-toggle").hidden = shown && !$("key").value; // without a key there is nothing to be done with
}

/* One message */
async function send() {
  const message = $("message").value;
  const key = !running && Date.now() >= opensAt_ms && message.trim() && keyGiven();
  if (!key) return;
  reopen();
  running = new AbortController();
  const turn = addTurn(message);
  setMessage("");
  $("message").focus();
  $("status").textContent = "Claude is answering.";
  const before = read("/v1/usage", key);
  try {
    // A quick answer may be in the books before a look that went out with it; a slow look must not keep the answer.
    await Promise.race([before, new Promise((go) => setTimeout(go, HEAD_START_MS))]);
    await stream(message, key, turn);
    if (!turn.words.data) turn.meta.textContent = "Claude gave no answer to this.";
    $("status").textContent = turn.words.data || turn.meta.textContent; // read out whole, not in pieces
  } catch (error) {
    const stopped = running.signal.aborted;
    $("status").textContent = stopped ? "Stopped." : "";
    if (stopped || turn.words.data) turn.meta.textContent = stopped ? "Stopped." : "The answer broke off here.";
    else turn.article.remove();
    if (!stopped && !$("message").value) setMessage(message);
    if (!stopped) explain(error.problem ?? { status: 0 });
  }
  turn.article.dataset.state = "ended";
  running = null;
  refresh();
  if (turn.article.isConnected) await account(turn, key, before);
}

async function stream(message, key, turn) {
  const headers = { "Authorization": `Bearer ${key}`, "Content-Type": "application/json", "Accept": "text/event-stream" };
  const response = await fetch("/chat", { method: "POST", headers, body: JSON.stringify({ message }), signal: running.signal });
  const retryAfter_s = Number(response.headers.get("Retry-After"));
  if (!response.ok) throw failure({ ...parsed(await response.text()), status: response.status, retryAfter_s });
  showKeyPanel(false);
  let ended = false;
  for await (const { type, data } of readEvents(response.body, SILENCE_MS)) {
    if (type === "error") throw failure({ status: 502, ...parsed(data) });
    ended ||= type === "done"; // the one end that means the answer is whole, and in the books
    if (type !== "message") continue;
    turn.article.dataset.state = "streaming";
    turn.words.appendData(data);
    follow();
  }
  if (!ended) throw failure({ status: 0 });
}

const failure = (problem) => Object.assign(new Error(problem.title), { problem });
const parsed = (json) => { try { return JSON.parse(json); } catch { return {}; } };

/* What it used, and what is left */
async function account(turn, key, before) {
  const was = await before;
  let now = null, messages = 0;
  for (const wait_ms of was ? SETTLE_WAITS_MS : []) {
    await new Promise((go) => setTimeout(go, wait_ms));
    now = await read("/v1/usage", key);
    messages = now ? now.totals.requests - was.totals.requests : 0;
    if (messages !== 0 || !now) break;
  }
  // Two messages at once (another tab, the same user) cannot be told apart: then only what is left is shown.
  const used = messages === 1 ? tokens(now.totals) - tokens(was.totals) : 0;
  const left = tightest(await read("/v1/limits", key));
  const low = left && left.remaining <= left.limit * LOW_SHARE;
  const parts = [
    used > 0 && `This message used ${used.toLocaleString()} tokens`,
    left && `${Math.max(0, left.remaining).toLocaleString()} ${used > 0 ? "" : "tokens "}left ${left.window === "day" ? "today" : "this period"}`,
  ].filter(Boolean).join("; ");
  turn.meta.textContent = [turn.meta.textContent, parts + (low ? `. More ${clock(Date.parse(left.resets_at))}` : "")].filter(Boolean).join(" ");
  turn.meta.classList.toggle("low", Boolean(low));
  follow();
}

/** JSON of a GET, or null: these reads only adorn the answer and must never disturb it. */
const read = (path, key) => fetch(path, { headers: { Authorization: `Bearer ${key}` }, cache: "no-store" })
  .then((response) => (response.ok ? response.json() : null)).catch(() => null);

const tokens = (u) => u.input_tokens + u.output_tokens + u.cache_read_tokens + u.cache_write_5m_tokens + u.cache_write_1h_tokens;

/** The token window that ends first: 5,000 left today is no comfort when the period has 200. */
const tightest = (limits) => (limits?.windows ?? [])
  .filter((w) => w.meter === "tokens" && w.window !== "minute" && Number.isFinite(w.remaining))
  .sort((a, b) => a.remaining - b.remaining)[0];

/* The page itself */
function addTurn(message) {
  const article = $("turn").content.cloneNode(true).firstElementChild, words = document.createTextNode("");
  article.dataset.state = "waiting";
  article.querySelector(".asked").textContent = message;
  article.querySelector(".answer").append(words);
  $("thread").append(article);
  atEnd = true;
  follow();
  return { article, words, meta: article.querySelector(".meta") };
}

let atEnd = true, height = 0; // atEnd is false while the reader has scrolled up: then the page does not pull them down
const follow = () => requestAnimationFrame(() => { if (atEnd) $("thread").scrollTop = $("thread").scrollHeight; });
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
$("message").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // composing: Enter picks a word of an IME
  event.preventDefault();
  send();
};
$("thread").onscroll = ({ target: t }) => { // a scroll that only came of a new height is not the reader's
  if (t.clientHeight === height) atEnd = t.scrollHeight - t.scrollTop - height < 48;
};
$("key").oninput = () => {
  store($("key").value.trim());
  $("key").removeAttribute("aria-invalid");
  showKeyPanel(true);
  reopen(); // another key may have no limit to wait for
};
$("key").onkeydown = (event) => { if (event.key === "Enter") $("message").focus(); };
$("key-toggle").onclick = () => showKeyPanel($("key-panel").hidden);
$("key-show").onclick = () => {
  const shown = $("key").type === "password";
  $("key").type = shown ? "text" : "password";
  $("key-show").ariaPressed = String(shown);
};

$("key").value = stored();
showKeyPanel(!stored());
setMessage();
$(stored() ? "message" : "key").focus();
