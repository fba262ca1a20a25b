"""The MCP face: the tools, resources and prompts of the service for agents, over streamable HTTP."""
