/** The list of conversations beside the open one; on a narrow window it opens over it. */
import { titleOf } from "./conversations.js";

const $ = (id) => document.getElementById(id);
const UNDO_MS = 10_000;
let forgetUndo = 0;

/** Shows the list. `opened`, `deleted` and `restored` are called with a conversation. */
export function showList(conversations, current, { opened, deleted, restored }) {
  $("shelf").replaceChildren(...conversations.map((one) => {
    const item = $("kept").content.cloneNode(true).firstElementChild;
    const [open, remove] = item.querySelectorAll("button");
    open.textContent = titleOf(one);
    if (one.id === current) open.setAttribute("aria-current", "true");
    open.onclick = () => { closeSidebar(); opened(one); };
    remove.setAttribute("aria-label", `Delete ${titleOf(one)}`);
    remove.onclick = () => { offerUndo(one, restored); deleted(one); ($("shelf").querySelector("button") ?? $("fresh")).focus(); };
    return item;
  }));
}

function offerUndo(conversation, restored) {
  clearTimeout(forgetUndo);
  $("undo").hidden = false;
  $("undo-text").textContent = `Deleted “${titleOf(conversation)}”.`;
  $("undo-way").onclick = () => { $("undo").hidden = true; restored(conversation); };
  forgetUndo = setTimeout(() => { $("undo").hidden = true; }, UNDO_MS);
}

export function closeSidebar() {
  $("side").classList.remove("open");
  $("side-way").setAttribute("aria-expanded", "false");
}

$("side-way").onclick = () => {
  const open = $("side").classList.toggle("open");
  $("side-way").setAttribute("aria-expanded", String(open));
  if (open) $("fresh").focus();
};
function backToMessages() {
  closeSidebar();
  $("side-way").focus();
}

$("side-close").onclick = backToMessages;
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && $("side").classList.contains("open")) backToMessages();
});
