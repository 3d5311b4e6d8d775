"""The paged cache, the summaries of its blocks, the plan of a decode step, and attention over chosen
blocks.
"""
