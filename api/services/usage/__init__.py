"""Services for prices, usage reports, requests, corrections, reconciliation and the spool."""
