"""Contestants that misbehave, for test_contest.py."""
