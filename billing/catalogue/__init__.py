"""What is sold, by whom and to whom: plan versions, their copies at Razorpay, and the profiles of both parties.

A published version of a plan never changes.
"""
