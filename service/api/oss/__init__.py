"""The dialect of Mem0's open-source server: no prefix, no slash at the end, answers at once."""
