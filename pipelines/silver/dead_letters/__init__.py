"""Dead letters of Silver: their states, and their replay."""
