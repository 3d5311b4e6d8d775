"""Taking a candidate away as a folder, and checking a folder that was taken away. Start reading at
`report.py`."""
