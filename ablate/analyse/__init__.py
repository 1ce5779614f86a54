"""From a tidy table (one row a trial) and hypotheses to verdicts, whoever made the runs."""
