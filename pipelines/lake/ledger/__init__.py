"""The batch ledger, and the batches whose writes were taken back."""
