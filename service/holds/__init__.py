"""Legal holds: which memories they cover, and the check that every delete and every rewrite meets."""
