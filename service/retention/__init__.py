"""All forgetting on purpose: erasures of persons, connectors and tenants."""
