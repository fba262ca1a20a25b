"""What must stay: legal holds and minimum retention, and the checks that every delete and every rewrite meets."""
