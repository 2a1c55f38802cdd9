"""Records to tables, figures, verdicts and a page."""
