"""The simulator of Razorpay, over HTTP, with the unmodified SDK."""
