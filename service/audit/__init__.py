"""The audit trail: who did what to which memories, with what outcome, and never what the memories say."""
