"""What may be known of rows: features, moments; the only room that sums over rows."""
