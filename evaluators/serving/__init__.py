"""Evaluation on a serving engine: accuracy, throughput and latency inside SGLang. Importing this needs no
SGLang."""
