"""Plan versions, which never change, their copies at Razorpay, and the profiles of customers and of the operator."""
