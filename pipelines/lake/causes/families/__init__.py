"""Lists the errors from outside in families, by the classes and conditions that stand in a trace."""
