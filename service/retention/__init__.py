"""All forgetting on purpose, and what keeps from it: erasures, legal holds, retention rules."""
