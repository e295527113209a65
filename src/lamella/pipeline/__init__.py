"""The verbs as functions: run a cohort, predict new slides, compare arms. Each ends with pictures and a page."""
