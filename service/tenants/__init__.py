"""Tenants and their subjects: the users, agents, apps and runs that memories belong to."""
