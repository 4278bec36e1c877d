"""The command line, and what Snakemake calls."""
