"""Who may do what: one pure function over one table, and the gate that every action passes."""
