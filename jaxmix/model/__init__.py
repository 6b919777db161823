"""The mixture: its classes, the laws that follow, its likelihood on tables and on rows."""
