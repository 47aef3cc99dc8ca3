/**
 * Conversations, kept in this browser until the visitor signs out. Each has a key of its own in localStorage, so that
 * two tabs do not write over each other; which one is open, and what is half typed, is the tab's own (sessionStorage).
 * Storage full: the oldest conversations go. Storage turned off: they last as long as the page.
 *
 * A conversation: {id, turns, from, model, updated_ms}; a turn: {asked, text, meta, low, ended, cut}. `from`: the turns
 * before this one are no longer sent.
 */

const PREFIX = "naka.chat.";
const MOST_CONVERSATIONS = 100;
const MOST_TURNS = 200;
const TITLE_CHARS = 48;

export function newConversation(model = "") {
  const id = `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`;
  return { id, turns: [], from: 0, model, updated_ms: Date.now() };
}

/** The first words of the first message. */
export function titleOf({ turns }) {
  const words = (turns[0]?.asked ?? "").trim().replace(/\s+/g, " ");
  if (!words) return "New chat";
  if (words.length <= TITLE_CHARS) return words;
  const cut = words.slice(0, TITLE_CHARS);
  return `${cut.slice(0, cut.lastIndexOf(" ") > TITLE_CHARS / 2 ? cut.lastIndexOf(" ") : TITLE_CHARS)}…`;
}

export class Conversations {
  #prefix;
  #tab;
  #loose = new Map(); // conversations that could not be stored

  constructor(visitor) {
    this.#prefix = `${PREFIX}${visitor}.`;
    this.#tab = `${PREFIX}${visitor}`;
    for (const key of keysOf(localStorageOrNone())) { // of another user, who never signed out
      if (key.startsWith(PREFIX) && !key.startsWith(this.#prefix)) localStorage.removeItem(key);
    }
  }

  /** All of them, the latest first. */
  list() {
    const stored = keysOf(localStorageOrNone()).filter((key) => key.startsWith(this.#prefix)).map((key) => read(localStorage, key));
    return [...stored, ...this.#loose.values()].filter((one) => one?.turns?.length).sort((a, b) => b.updated_ms - a.updated_ms);
  }

  find(id) {
    return this.#loose.get(id) ?? read(localStorageOrNone(), this.#prefix + id);
  }

  save(conversation) {
    const kept = { ...conversation, turns: conversation.turns.slice(-MOST_TURNS) };
    kept.from = Math.max(0, conversation.from - (conversation.turns.length - kept.turns.length));
    this.#loose.delete(kept.id);
    const others = this.list().filter(({ id }) => id !== kept.id);
    for (const { id } of others.splice(MOST_CONVERSATIONS - 1)) this.remove(id);
    while (!write(localStorageOrNone(), this.#prefix + kept.id, kept)) {
      if (!others.length) return void this.#loose.set(kept.id, kept);
      this.remove(others.pop().id);
    }
  }

  remove(id) {
    this.#loose.delete(id);
    localStorageOrNone()?.removeItem(this.#prefix + id);
  }

  /** The conversation that this tab shows, and its unsent text. */
  tab() {
    return read(sessionStorageOrNone(), this.#tab) ?? {};
  }

  saveTab(open, draft) {
    write(sessionStorageOrNone(), this.#tab, { open, draft });
  }

  /** Removes everything, for the next visitor of this browser. */
  forget() {
    this.#loose.clear();
    for (const key of keysOf(localStorageOrNone())) if (key.startsWith(this.#prefix)) localStorage.removeItem(key);
    sessionStorageOrNone()?.removeItem(this.#tab);
  }

  /** Calls back when another tab changed something. */
  onChange(changed) {
    addEventListener("storage", ({ key }) => { if (key === null || key.startsWith(this.#prefix)) changed(); });
  }
}

function localStorageOrNone() { try { return localStorage; } catch { return null; } }
function sessionStorageOrNone() { try { return sessionStorage; } catch { return null; } }
const keysOf = (storage) => (storage ? Object.keys(storage) : []);
function read(storage, key) { try { return JSON.parse(storage.getItem(key)); } catch { return null; } }
function write(storage, key, value) { try { storage.setItem(key, JSON.stringify(value)); return true; } catch { return false; } }
