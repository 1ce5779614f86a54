"""The figures: one file each, every one a function of the table and what else it shows."""
