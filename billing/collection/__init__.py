"""Collection: an open bill is charged by payment link or add-on, and money that arrives is allocated.

The charge is stored before Razorpay is called, and its answer in a second transaction: a crash between them is
followed up by the worker. Money is applied once; a surplus is refunded.
"""
