// Polls a subscription that is to be authorised at Razorpay while this page is visible, and reloads the page when its
// state changes. Copies a secret that is shown once.

const EVERY_MS = 2_000;
const MOST_LOOKS = 600;

const waiting = document.querySelector("[data-waits-for]");
if (waiting) watch(waiting.dataset.waitsFor, waiting.querySelector("[data-waiting-words]"));

for (const button of document.querySelectorAll("[data-copies]")) {
  const secret = document.getElementById(button.dataset.copies);
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(secret.textContent.trim());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy it manually";
    }
  });
}

async function watch(id, words) {
  if (words) words.textContent = "Waiting for Razorpay. This page updates by itself.";
  for (let looks = 0; looks < MOST_LOOKS; looks += 1) {
    await pause(EVERY_MS);
    if (document.hidden) continue;
    const answer = await look();
    if (answer && answer.waiting?.id !== id) {
      location.replace(answer.current?.id === id ? "/account/plan?said=active" : "/account/plan");
      return;
    }
  }
  if (words) words.textContent = "Not confirmed yet. Check again when you have authorised it.";
}

async function look() {
  try {
    const answer = await fetch("/v1/billing/subscription", { headers: { accept: "application/json" } });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null; // away for a moment: the next look tells
  }
}

function pause(ms) {
  return new Promise((done) => setTimeout(done, ms));
}
