"""Records as Parquet tables, and how tables are joined."""
