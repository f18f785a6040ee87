"""Walls around processes that run or read hostile bytes."""
