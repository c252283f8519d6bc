"""The suites of script/benchmark.py and what they share: cases, child processes, results, tables, pictures."""
