"""The gate before the bill: writes a day's candidate, audits it with `conf/expectations`, says whether it may be billed."""
