/**
 * Markdown as Claude writes it, into elements. Nothing ever goes through a parser of HTML: tags in the text stay text,
 * every character ends in a text node, and a link that is not http, https or mailto stays words. Pictures become links,
 * since nothing is loaded from elsewhere. Work is bounded: a mark without its end is looked for once.
 */

import { highlight } from "./chat/highlight.js";

const SAFE = new Set(["http:", "https:", "mailto:"]);
const MOST_DEPTH = 12;
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}>[ ]?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:[ \t]+|$)/;
const TABLE_RULE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/** The text as a fragment of elements, ready to be put into the page. */
export function render(text) {
  const fragment = document.createDocumentFragment();
  blocks(text.split("\n"), fragment, 0);
  return fragment;
}

/* Blocks: each takes the lines that belong to it, from `at` on, and says where the next one begins. */

function blocks(lines, parent, depth) {
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    if (!line.trim()) at++;
    else if (depth >= MOST_DEPTH) at = paragraph(lines, at, parent, () => false);
    else if (FENCE.test(line)) at = fence(lines, at, parent);
    else if (RULE.test(line)) { parent.append(element("hr")); at++; }
    else if (HEADING.test(line)) at = heading(lines, at, parent);
    else if (QUOTE.test(line)) at = quote(lines, at, parent, depth);
    else if (ITEM.test(line)) at = list(lines, at, parent, depth);
    else if (isTable(lines, at)) at = table(lines, at, parent);
    else at = paragraph(lines, at, parent, (next) => starts(lines, next));
  }
}

const starts = (lines, at) => FENCE.test(lines[at]) || RULE.test(lines[at]) || HEADING.test(lines[at])
  || QUOTE.test(lines[at]) || ITEM.test(lines[at]) || isTable(lines, at);

function paragraph(lines, at, parent, ends) {
  const first = at++;
  while (at < lines.length && lines[at].trim() && !ends(at)) at++;
  const p = element("p", { dir: "auto" });
  lines.slice(first, at).forEach((line, index) => {
    if (index) p.append(element("br"));
    inline(line.trim().replace(/\\$/, ""), p);
  });
  parent.append(p);
  return at;
}

function fence(lines, at, parent) {
  const [, mark, language] = FENCE.exec(lines[at]);
  const closing = new RegExp(`^ {0,3}${mark[0]}{${mark.length},}[ \\t]*$`);
  const first = ++at;
  while (at < lines.length && !closing.test(lines[at])) at++;
  const code = element("code");
  highlight(lines.slice(first, at).join("\n"), language, code);
  const pre = element("pre", { tabIndex: 0, ariaLabel: language ? `Code, ${language}` : "Code", role: "group" }, code);
  if (language) pre.dataset.language = language; // shown by the style sheet
  parent.append(pre);
  return at + 1;
}

function heading(lines, at, parent) {
  const [, marks, text = ""] = HEADING.exec(lines[at]);
  const h = element(`h${Math.min(6, marks.length + 2)}`, { dir: "auto" }); // the page has h1 and h2
  inline(text, h);
  parent.append(h);
  return at + 1;
}

function quote(lines, at, parent, depth) {
  const inner = [];
  for (; at < lines.length && QUOTE.test(lines[at]); at++) inner.push(lines[at].replace(QUOTE, ""));
  const node = element("blockquote");
  blocks(inner, node, depth + 1);
  parent.append(node);
  return at;
}

function list(lines, at, parent, depth) {
  const kind = (mark) => (/\d/.test(mark) ? `1${mark.at(-1)}` : mark);
  const first = ITEM.exec(lines[at])[2];
  const node = element(/\d/.test(first) ? "ol" : "ul", { dir: "auto" });
  if (/\d/.test(first) && Number.parseInt(first, 10) !== 1) node.start = Number.parseInt(first, 10);
  for (let item; at < lines.length && (item = ITEM.exec(lines[at])) && kind(item[2]) === kind(first) && !RULE.test(lines[at]);) {
    const indent = item[1].length + item[2].length + 1;
    const inner = [lines[at].slice(item[0].length)];
    for (at++; at < lines.length; at++) {
      const line = lines[at], blank = !line.trim();
      const belongs = blank ? at + 1 < lines.length && indentOf(lines[at + 1]) >= Math.min(indent, 2) && lines[at + 1].trim()
        : indentOf(line) >= Math.min(indent, 2) || (!ITEM.test(line) && inner.at(-1).trim() && !starts(lines, at));
      if (!belongs) break;
      inner.push(line.slice(Math.min(indentOf(line), indent)));
    }
    const li = element("li");
    blocks(inner, li, depth + 1);
    if (li.children.length && li.firstChild.nodeName === "P") li.firstChild.replaceWith(...li.firstChild.childNodes); // tight
    node.append(li);
    while (at < lines.length && !lines[at].trim() && at + 1 < lines.length && ITEM.test(lines[at + 1])) at++;
  }
  parent.append(node);
  return at;
}

const indentOf = (line) => line.length - line.trimStart().length;

const isTable = (lines, at) => lines[at].includes("|") && at + 1 < lines.length && TABLE_RULE.test(lines[at + 1])
  && lines[at + 1].includes("-") && cells(lines[at]).length === cells(lines[at + 1]).length;

const cells = (line) => line.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));

function table(lines, at, parent) {
  const names = cells(lines[at]);
  const sides = cells(lines[at + 1]).map((rule) => (rule.endsWith(":") ? (rule.startsWith(":") ? "middle" : "end") : ""));
  const head = element("tr"), body = element("tbody");
  names.forEach((name, index) => head.append(cell("th", name, sides[index])));
  for (at += 2; at < lines.length && lines[at].includes("|") && lines[at].trim(); at++) {
    const row = element("tr"), found = cells(lines[at]);
    names.forEach((_, index) => row.append(cell("td", found[index] ?? "", sides[index])));
    body.append(row);
  }
  const node = element("table", {}, element("thead", {}, head), body);
  parent.append(element("div", { className: "scroll", tabIndex: 0, role: "group", ariaLabel: "Table" }, node));
  return at;
}

function cell(name, text, side) {
  const node = element(name, { className: side, dir: "auto" });
  inline(text, node);
  return node;
}

/* Within a line */

const ESCAPED = /[!-/:-@[-`{-~]/;
const BARE = /^https?:\/\/[^\s<>"'`]+[^\s<>"'`.,;:!?)\]}*_~]/;
const AUTO = /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/;

function inline(text, parent, depth = 0) {
  const missing = new Set(); // marks that have no end after here: not looked for again
  let words = "", at = 0;
  const flush = () => { if (words) parent.append(words); words = ""; };
  const put = (node, length) => { flush(); parent.append(node); at += length; };
  while (at < text.length) {
    const found = depth < MOST_DEPTH ? span(text, at, missing, depth) : null;
    if (found) put(found.node, found.length);
    else if (text[at] === "\\" && ESCAPED.test(text[at + 1] ?? "")) { words += text[at + 1]; at += 2; }
    else words += text[at++];
  }
  flush();
}

/** The element that begins at `at`, and how much of the text it takes; or null. */
function span(text, at, missing, depth) {
  switch (text[at]) {
    case "`": return code(text, at, missing);
    case "*": case "_": case "~": return emphasis(text, at, missing, depth);
    case "!": return text[at + 1] === "[" ? link(text, at + 1, 1, missing, depth) : null;
    case "[": return link(text, at, 0, missing, depth);
    case "<": return bare(AUTO.exec(text.slice(at, at + 2100)));
    case "h": return /\w/.test(text[at - 1] ?? "") ? null : bare(BARE.exec(text.slice(at, at + 2100)));
    default: return null;
  }
}

function code(text, at, missing) {
  const mark = /^`+/.exec(text.slice(at))[0];
  const end = missing.has(mark) ? -1 : text.indexOf(mark, at + mark.length);
  if (end < 0) return missing.add(mark), { node: mark, length: mark.length };
  return { node: element("code", {}, text.slice(at + mark.length, end).replace(/^ (.*) $/, "$1")), length: end + mark.length - at };
}

function emphasis(text, at, missing, depth) {
  const letter = text[at];
  const run = /^(.)\1*/.exec(text.slice(at, at + 5))[0].length;
  const before = text[at - 1] ?? " ", after = text[at + run] ?? " ";
  if (run > 3) return words(text, at, letter);
  if (letter === "~" && run !== 2) return null;
  if (/\s/.test(after) || (/\w/.test(before) && (letter === "_" || ESCAPED.test(after)))) return words(text, at, letter);
  const mark = run === 2 ? letter + letter : letter; // three: a soft one round a strong one
  const first = at + mark.length;
  if (missing.has(mark)) return null;
  for (let end = text.indexOf(mark, at + run); end > 0; end = text.indexOf(mark, end + mark.length)) {
    if (mark.length === 1 && text[end + 1] === letter) { end++; continue; } // the end of a strong one inside
    const closes = /[^\s\\]/.test(text[end - 1]) && !(letter === "_" && /\w/.test(text[end + mark.length] ?? ""));
    if (!closes) continue;
    const node = element(letter === "~" ? "del" : mark.length === 2 ? "strong" : "em");
    inline(text.slice(first, end), node, depth + 1);
    return { node, length: end + mark.length - at };
  }
  missing.add(mark);
  return null;
}

/** A run of marks that mark nothing, as it stands. */
function words(text, at, letter) {
  let end = at;
  while (text[end] === letter) end++;
  return { node: text.slice(at, end), length: end - at };
}

function link(text, at, before, missing, depth) {
  const middle = missing.has("](") ? -1 : text.indexOf("](", at);
  if (middle < 0) return missing.add("]("), null;
  const end = missing.has(")") ? -1 : text.indexOf(")", middle);
  if (end < 0) return missing.add(")"), null;
  const label = text.slice(at + 1, middle);
  if (label.includes("[") && !before) return null; // the inner one is the link
  const target = /^\s*<?(\S*?)>?(?:\s+["'(].*)?\s*$/.exec(text.slice(middle + 2, end))?.[1] ?? "";
  const node = anchor(target);
  if (!node) return null;
  if (label.trim()) inline(label, node, depth + 1);
  else node.append(target);
  return { node, length: end + 1 - at + before };
}

function bare(match) {
  const node = match && anchor(match[1] ?? match[0]);
  if (!node) return null;
  node.append(match[1] ?? match[0]);
  return { node, length: match[0].length };
}

/** A link that harms nobody, or null: what is relative or of another scheme is not made a link. */
function anchor(target) {
  let url;
  try { url = new URL(target); } catch { return null; }
  if (!SAFE.has(url.protocol)) return null;
  return element("a", { href: url.href, rel: "noopener noreferrer nofollow", target: "_blank" });
}

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}
