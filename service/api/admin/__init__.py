"""Our own dialect: administration of the caller's tenant with a key of that tenant."""
