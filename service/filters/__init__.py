"""The filter language: one tree, one parser, one truth table, shared by search, lists, deletes and rules."""
