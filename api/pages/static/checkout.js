// Razorpay's Checkout in this page, an alternative to its hosted page. Its script is fetched on the click only. Our API
// verifies the signature of its answer, and fetches the subscription's state from Razorpay.

const SCRIPT = "https://checkout.razorpay.com/v1/checkout.js";

const button = document.querySelector("[data-checkout-key]");
const words = document.querySelector("[data-waiting-words]");
if (button) {
  button.hidden = false;
  button.addEventListener("click", open);
}

async function open() {
  button.disabled = true;
  try {
    await load();
    const { checkoutKey, checkoutSubscription, checkoutName } = button.dataset;
    const options = { key: checkoutKey, subscription_id: checkoutSubscription, name: checkoutName, handler: authorised };
    new window.Razorpay(options).open();
  } catch {
    say("Razorpay's Checkout could not be opened. Use the link beside it.");
  }
  button.disabled = false;
}

function load() {
  if (window.Razorpay) return Promise.resolve();
  return new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = SCRIPT;
    script.onload = done;
    script.onerror = failed;
    document.head.append(script);
  });
}

async function authorised({ razorpay_payment_id, razorpay_subscription_id, razorpay_signature }) {
  say("Payment received. One moment.");
  try {
    const answer = await fetch("/v1/billing/subscription/authorised", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ razorpay_payment_id, razorpay_subscription_id, razorpay_signature }),
    });
    if (answer.ok) location.replace("/account/plan?said=active");
    else say("Not confirmed yet. This page checks again by itself.");
  } catch {
    say("Not confirmed yet. This page checks again by itself.");
  }
}

function say(text) {
  if (words) words.textContent = text;
}
