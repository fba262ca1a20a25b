"""The calls that are made for connectors: context and summaries, the accounts of people, webhooks."""
