"""A scripted LLM behind a real HTTP server."""
