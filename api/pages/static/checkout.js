// Razorpay's Checkout in this page, beside its hosted page: its script is fetched on the click and not before. What it
// answers goes to our API, which verifies the signature; what the account then has follows from what Razorpay says.

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
  say("Razorpay has taken it. One moment.");
  try {
    const answer = await fetch("/v1/billing/subscription/authorised", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ razorpay_payment_id, razorpay_subscription_id, razorpay_signature }),
    });
    if (answer.ok) location.replace("/account/plan?said=active");
    else say("This could not be confirmed yet. The page looks again by itself.");
  } catch {
    say("This could not be confirmed yet. The page looks again by itself.");
  }
}

function say(text) {
  if (words) words.textContent = text;
}
