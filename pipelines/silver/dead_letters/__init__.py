"""Dead letters of Silver: their states, their replay, and their retention."""
