/**
 * The chat page: conversations, one streamed answer at a time, and plain words when there is none.
 *
 * Who asks is the session's cookie, which no script sees. Every text from outside ends in a text node (`markdown.js`
 * makes elements of it, never markup). The server keeps no text: what was said stays in this browser until the visitor
 * signs out (`chat/conversations.js`), and goes along with the next message (`chat/exchange.js`).
 */
import { Conversations, newConversation } from "./chat/conversations.js";
import { open, pieces } from "./chat/exchange.js";
import { closeSidebar, showList } from "./chat/sidebar.js";
import { Turn, copy, follow, toEnd } from "./chat/thread.js";
import { leftLine, requestOf, tightest, usageLine } from "./chat/usage.js";
import { span, wayFrom, whyCut, wordsFor } from "./chat/words.js";
import { standing } from "./standing.js";

const $ = (id) => document.getElementById(id);
const { visitor, bytes } = $("main").dataset;
const CONTINUE = "Continue exactly where you stopped.";
const shelf = new Conversations(visitor);
let talk = newConversation(); // the open conversation; its turns are `Turn`s
let running = null; // the AbortController of the answer that is being written
let editing = null; // {from, draft}: the turn being edited, and the field's text before
let opensAt_ms = 0, ticker = 0; // the server said when to come back: nothing is sent before

/* Errors, and the time to try again */

function notice(text = "", more = "", way = null) {
  $("notice").hidden = !text;
  $("notice-text").textContent = text;
  $("notice-more").textContent = more;
  $("notice-way").hidden = !way;
  const link = $("notice-way").firstElementChild;
  if (way) [link.href, link.textContent, link.target] = [way[0], way[1], way[2] ? "_blank" : ""];
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

/** A refusal in words. An account that owes something is told to pay, not to wait until the limit resets. */
async function explain({ status, code, detail, retryAfter_s, request_id: id }) {
  reopen();
  const owed = status === 402 || code === "limit_reached" ? (await standing())?.banner : null;
  if (owed) {
    notice(owed.text, "", owed.href && [owed.href, owed.label, owed.away]);
    showLeft(null);
    return refresh();
  }
  if (retryAfter_s > 0) wait(retryAfter_s);
  const more = status < 500 ? detail : id && `Reference ${id}`; // what the reader can mend, or what support asks for
  notice(wordsFor(status, code, opensAt_ms), status === 401 ? "" : more, wayFrom(status, code));
  refresh();
}

/* One message */

/** The rest of the limits; nothing while the account owes something, since then other limits apply. */
const showLeft = (left) => { $("left").textContent = $("banner").hidden ? leftLine(left) : ""; };
const isPassing = (status) => status === 0 || status >= 500; // the same message may be answered in a moment
const isClosed = () => running !== null || Date.now() < opensAt_ms;

function send() {
  const message = $("message").value;
  if (isClosed() || !message.trim()) return;
  const from = editing?.from ?? talk.turns.length;
  stopEditing("");
  ask(message, from);
}

/** Asks in the open conversation; the turns from `from` on are replaced, unless there is no answer. */
async function ask(message, from = talk.turns.length) {
  if (isClosed()) return;
  reopen();
  const asked = talk, replaced = talk.turns.splice(from), controller = running = new AbortController();
  for (const old of replaced) old.article.remove();
  asked.from = Math.min(asked.from, from);
  asked.updated_ms = Date.now();
  const turn = addTurn(asked, new Turn({ asked: message }));
  toEnd();
  refresh();
  keep(asked);
  $("message").focus();
  $("status").textContent = "Claude is answering.";
  try {
    await stream(asked, turn, controller.signal);
    if (!turn.text) turn.say("Claude gave no answer to this.");
    $("status").textContent = turn.text || turn.meta; // a screen reader reads the whole text once
  } catch (error) {
    const stopped = controller.signal.aborted, problem = error.problem ?? { status: 0 };
    const stays = stopped || turn.text || (isPassing(problem.status) && !replaced.length);
    if (running === controller) running = null;
    $("status").textContent = stopped ? "Stopped." : "";
    if (stays) turn.say(stopped ? "Stopped." : turn.text ? "The answer broke off here." : "Not answered.");
    else putBack(asked, turn, replaced);
    if (!stopped && (turn.text || !stays)) giveBack(message, turn, replaced[0], from);
    if (!stopped) explain(problem);
  }
  turn.end();
  turn.ended = true;
  if (running === controller) running = null;
  refresh();
  keep(asked);
  if (asked.turns.includes(turn)) await account(asked, turn);
}

async function stream(asked, turn, signal) {
  const turns = asked.turns.slice(0, -1);
  const { response, from } = await open({ message: turn.asked, model: asked.model, turns, from: asked.from, maxBytes: Number(bytes), signal });
  turn.id = response.headers.get("X-Request-Id");
  asked.from = from;
  markLeftOut();
  for await (const piece of pieces(response)) {
    turn.state = "streaming";
    turn.text += piece;
    turn.draw();
  }
}

/** Shows the usage of an answer, the rest of the limits, and why the answer ended early. */
async function account(asked, turn) {
  const [request, left] = [await requestOf(turn.id), await tightest()];
  const [line, low] = usageLine(request, left);
  turn.say([turn.meta, line].filter(Boolean).join(" "), low);
  turn.sayCut(turn.text && whyCut(request));
  showLeft(left);
  if (asked.turns.includes(turn)) keep(asked);
  follow();
}

/* The open conversation */

function addTurn(conversation, turn) {
  conversation.turns.push(turn);
  $("thread").append(turn.article);
  turn.part("edit").onclick = () => startEditing(conversation.turns.indexOf(turn));
  turn.part("again").onclick = () => ask(turn.asked, conversation.turns.indexOf(turn));
  turn.part("copy").onclick = ({ target }) => copy(turn.text, target);
  turn.part("continue").onclick = () => ask(CONTINUE);
  return turn;
}

/** A message that was refused leaves everything as it was. */
function putBack(conversation, turn, replaced) {
  turn.article.remove();
  conversation.turns.splice(conversation.turns.indexOf(turn), 1, ...replaced);
  if (conversation === talk) $("thread").append(...replaced.map(({ article }) => article));
}

/** Puts a refused message back into the field. */
function giveBack(message, turn, old, from) {
  if ($("message").value || (old && !turn.text && old.asked === message)) return; // asked again: its text is shown already
  if (old && !turn.text) startEditing(from);
  setMessage(message);
}

function keep(conversation = talk) {
  const isOld = conversation !== talk && conversation.id === talk.id; // it was opened again since
  if (!conversation.turns.length) shelf.remove(conversation.id);
  else if (!conversation.isGone && !isOld) shelf.save(conversation);
  shelf.saveTab(talk.id, $("message").value);
  list();
}

function show(conversation) {
  running?.abort();
  stopEditing();
  for (const { article } of talk.turns) article.remove();
  const turns = conversation?.turns ?? [];
  talk = conversation ? { ...conversation, turns: [] } : newConversation($("model").value);
  for (const kept of turns) {
    const turn = addTurn(talk, new Turn(kept));
    turn.end();
    if (!kept.ended) turn.say("The answer broke off here.");
  }
  if ([...$("model").options].some(({ value }) => value === talk.model)) $("model").value = talk.model;
  talk.model = $("model").value;
  markLeftOut();
  reopen();
  toEnd();
  list();
}

/** A line before the first turn that is still sent. */
function markLeftOut() {
  const first = talk.from > 0 && talk.turns[talk.from]?.article;
  $("left-out").hidden = !first;
  if (first) first.before($("left-out"));
}

function list() {
  showList(shelf.list(), talk.id, {
    opened: ({ id }) => {
      if (id !== talk.id) show(shelf.find(id));
      shelf.saveTab(talk.id, $("message").value);
      $("message").focus();
    },
    deleted: (one) => { if (one.id === talk.id) { talk.isGone = true; fresh(); } shelf.remove(one.id); list(); },
    restored: (one) => { shelf.save(one); show(one); $("message").focus(); },
  });
}

function fresh() {
  show(null);
  shelf.saveTab(talk.id, $("message").value);
  closeSidebar();
  $("message").focus();
}

/* The message field */

function startEditing(from) {
  if (running || from < 0) return;
  editing = { from, draft: editing?.draft ?? $("message").value };
  $("editing").hidden = false;
  setMessage(talk.turns[from].asked);
  $("message").focus();
}

function stopEditing(text = editing?.draft) {
  $("editing").hidden = true;
  editing = null;
  if (text !== undefined) setMessage(text);
}

function refresh() {
  $("send").hidden = running !== null;
  $("stop").hidden = running === null;
  $("send").disabled = Date.now() < opensAt_ms || !$("message").value.trim();
  $("thread").dataset.closed = isClosed() ? "yes" : "";
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
  if (event.isComposing) return; // Enter chooses a word of an input method
  if (event.key === "Escape" && editing) stopEditing();
  else if (event.key === "ArrowUp" && !$("message").value && talk.turns.length) startEditing(talk.turns.length - 1);
  else if (event.key === "Enter" && !event.shiftKey) send();
  else return;
  event.preventDefault();
};
$("editing-way").onclick = () => { stopEditing(); $("message").focus(); };
$("fresh").onclick = fresh;
$("model").onchange = () => { talk.model = $("model").value; keep(); };
shelf.onChange(list);
const leave = () => (running ? keep() : shelf.saveTab(talk.id, $("message").value)); // an unfinished answer is kept, too
addEventListener("pagehide", leave);
document.querySelector(".who")?.addEventListener("submit", () => {
  removeEventListener("pagehide", leave);
  shelf.forget();
});

const { open: last, draft = "" } = shelf.tab();
show(last ? shelf.find(last) : null);
setMessage($("message").value || draft); // text typed before this script ran is kept
$("message").focus();
tightest().then(showLeft);
