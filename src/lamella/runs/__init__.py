"""8. Runs: one encoder on one cohort. Settings, folder, bags, rounds, measuring, stage two, new slides."""
