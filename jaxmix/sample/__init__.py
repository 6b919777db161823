"""What may be known of rows: here their design."""
