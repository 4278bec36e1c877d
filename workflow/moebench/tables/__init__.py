"""Records as Parquet tables, and joins of tables."""
