"""Commands for prices, corrections, usage reports, reconciliation and the spool."""
