"""What `recli bench` measures: races between recli and the libraries that its users would otherwise take.

A race sets one task (races/); contestants/ has one file for each library that can enter. Each contestant works in a
process of its own (worker.py), which the bench starts, alternates with the others, and ends (contest.py).
"""
