"""The index: finds the ids of memories by meaning, words and filter. Holds nothing that one can read."""
