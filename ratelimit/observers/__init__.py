"""What watches a limiter: metrics, traces, logs, and who is most active. None of it changes a decision."""
