/** The conversation on the page: its turns with their buttons, and the scrolling that follows an answer. */
import { render } from "../markdown.js";

const $ = (id) => document.getElementById(id);
const COPIED_MS = 1500;

/** One message and its answer; `toJSON` is its stored form. */
export class Turn {
  constructor({ asked, text = "", meta = "", low = false, ended = false, cut = "" }) {
    Object.assign(this, { asked, text, ended, cut });
    this.article = $("turn").content.cloneNode(true).firstElementChild;
    this.part = (name) => this.article.querySelector(`.${name}`);
    this.part("asked").textContent = asked;
    this.state = "waiting";
    this.say(meta, low);
    this.sayCut(cut);
  }

  set state(state) { this.article.dataset.state = state; }

  /** The line under the answer. */
  say(meta, low = false) {
    Object.assign(this, { meta, low });
    this.part("meta").textContent = meta;
    this.part("meta").classList.toggle("low", low);
  }

  /** The reason why the answer ended early; the page offers to continue. */
  sayCut(cut) {
    this.cut = cut;
    this.part("cut").hidden = !cut;
    this.part("why").textContent = cut;
  }

  toJSON() {
    const { asked, text, meta, low, ended, cut } = this;
    return { asked, text, meta, low, ended, cut };
  }

  /** Draws at most once a frame, however many pieces came. */
  draw() {
    this.frame ??= requestAnimationFrame(() => this.write());
  }

  write() {
    if (this.frame) cancelAnimationFrame(this.frame);
    this.frame = undefined;
    this.part("answer").replaceChildren(render(this.text));
    follow();
  }

  /** Ends the answer. */
  end() {
    this.write();
    this.state = "ended";
    this.part("copy").hidden = !this.text;
    this.part("again").textContent = this.text ? "Regenerate" : "Try again";
    for (const pre of this.part("answer").querySelectorAll("pre")) addCopy(pre);
  }
}

/** A button in the corner of a block of code. */
function addCopy(pre) {
  const frame = document.createElement("div");
  frame.className = "code";
  const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet copy-code", textContent: "Copy" });
  button.setAttribute("aria-label", "Copy code");
  button.onclick = () => copy(pre.textContent, button);
  pre.replaceWith(frame);
  frame.append(pre, button);
}

/** Puts text into the clipboard, and says so on the button. */
export async function copy(text, button) {
  const label = button.textContent;
  button.textContent = (await toClipboard(text)) ? "Copied" : "Not copied";
  $("status").textContent = button.textContent;
  setTimeout(() => { button.textContent = label; }, COPIED_MS);
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // plain http has no clipboard, and a browser may refuse it
    const box = Object.assign(document.createElement("textarea"), { value: text, className: "unseen" });
    const focused = document.activeElement;
    document.body.append(box);
    box.select();
    const copied = document.execCommand("copy");
    box.remove();
    focused?.focus();
    return copied;
  }
}

/* Scrolling */

let atEnd = true; // false while the reader has scrolled up: then the page does not scroll down
let height = 0, lastTop = 0;

export function toEnd() {
  atEnd = true;
  follow();
}

export const follow = () => requestAnimationFrame(() => {
  if (!atEnd) return;
  $("thread").scrollTop = $("thread").scrollHeight;
  lastTop = $("thread").scrollTop;
});

new ResizeObserver(() => { height = $("thread").clientHeight; follow(); }).observe($("thread")); // a notice, a phone's keyboard
$("thread").onscroll = ({ target: t }) => { // a scroll that a new height caused is not the reader's
  // Nor did the reader leave the end when it moved on: since our own scroll to it, more may have been written.
  const wentUp = t.scrollTop < lastTop;
  lastTop = t.scrollTop;
  if (t.clientHeight === height) atEnd = t.scrollHeight - t.scrollTop - height < 48 || (atEnd && !wentUp);
};
