"""What a run found: histogram, document, table, page, comparison. Pure."""
