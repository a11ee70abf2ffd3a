"""The contract of the lake's tables: properties, features, columns and retention."""
