"""The judge: builds what is missing, measures every prior alike, and writes records and reports."""
