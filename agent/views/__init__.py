"""What one sees of a search: the live view, the final table, the plot and the machine-readable report."""
