"""9. Studies: many arms on one cohort. Design, plan, execution, costs, verdict."""
