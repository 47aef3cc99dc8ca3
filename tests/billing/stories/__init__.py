"""Random stories over whole periods, checked by a pricing of their own."""
