"""What may be known of rows: features, moments, design; the only room that sums over rows."""
