"""The search: proposers, sandbox, loop, ledger, views, export."""
