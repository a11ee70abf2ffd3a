"""Finds the cause of an error from outside: what kind it is, and which playbook leads out."""
