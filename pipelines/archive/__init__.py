"""Bronze's archive: days too old for the hot table, as compressed Parquet with a manifest, and the way back."""
