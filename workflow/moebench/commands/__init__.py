"""The command line, and the functions that Snakemake calls."""
