"""Mem0's Platform dialect: the paths and shapes that the official clients speak."""
