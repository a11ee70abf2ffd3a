"""What the jobs share and needs Spark: session, Delta writes, the life of a stream, start-up, replays."""
