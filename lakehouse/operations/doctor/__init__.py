"""What is wrong with a lake, how sure that is, what is at stake, and the commands that mend it; no JVM."""
