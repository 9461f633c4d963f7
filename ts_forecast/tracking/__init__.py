"""What was computed, from what, and what came of it: experiments, runs, parameters, metrics."""
