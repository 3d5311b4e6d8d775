"""`python -m agent.leaderboard`: the best candidates of a ledger, over runs."""
