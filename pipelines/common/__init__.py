"""What the jobs share, by topic."""
