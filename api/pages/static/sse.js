/**
 * Reads server-sent events from a byte stream, as the WHATWG HTML standard (9.2.6) parses them.
 *
 * EventSource can send neither a POST nor an Authorization header, so the page reads the stream of fetch()
 * itself. A chunk may end anywhere: inside a character, a field, or between the CR and the LF of one line end.
 * An event that was not closed by a blank line when the stream ends is dropped: it may be half of one.
 */

export class EventDecoder {
  #utf8 = new TextDecoder(); // strips one leading BOM, keeps a split character for the next chunk
  #line = "";
  #afterCR = false;
  #data = [];
  #type = "";
  #id = "";

  /** Takes the next bytes; returns the events they completed, as {type, data, id}. */
  push(bytes) {
    let text = this.#utf8.decode(bytes, { stream: true });
    if (text === "") return [];
    if (this.#afterCR && text[0] === "\n") text = text.slice(1);
    this.#afterCR = text === "" ? false : text.endsWith("\r");

    const lines = text.split(/\r\n|\r|\n/); // only the new text is scanned: a long line costs no more than its length
    const rest = lines.pop();
    const events = [];
    for (const line of lines) {
      const event = this.#take(this.#line + line);
      this.#line = "";
      if (event) events.push(event);
    }
    this.#line += rest;
    return events;
  }

  #take(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return null; // a comment: the server's heartbeat
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value[0] === " ") value = value.slice(1); // one blank, not all: text may begin with blanks of its own
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    return null;
  }

  #dispatch() {
    // No data line at all is no event; one empty data line is an event with empty data (`done` is one).
    const event = this.#data.length && { type: this.#type || "message", data: this.#data.join("\n"), id: this.#id };
    this.#data = [];
    this.#type = "";
    return event || null;
  }
}

/**
 * The events of a ReadableStream of bytes. Leaving the loop early cancels the stream, and so does a silence longer
 * than `silence_ms` (comments are not silence), which throws.
 */
export async function* readEvents(stream, silence_ms = 2 ** 31 - 1) {
  const decoder = new EventDecoder();
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await within(silence_ms, reader.read());
      if (done) return;
      yield* decoder.push(value);
    }
  } finally {
    reader.cancel().catch(() => {}); // a no-op on a stream that has ended; a broken one has told its story already
  }
}

function within(limit_ms, promise) {
  let timer;
  const late = new Promise((_, refuse) => { timer = setTimeout(refuse, limit_ms, new Error("The stream fell silent.")); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
