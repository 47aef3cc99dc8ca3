"""The wallet of a prepaid tenant: its entries, what is left of them, and how much each period may still cost."""
