"""A look at every slide before anything long is started: would it work, how long, how much disk.

From headers, a thumbnail, at most 16 tiles at full resolution and a hash of size, first and last MiB.
"""

from lamella.audits.cohort import Audit, Cost, audit_cohort, estimate_cost, save_audit
from lamella.audits.row import AUDIT_COLUMNS, AuditRow
from lamella.audits.sharpness import measure_blur
from lamella.audits.slide import Cut, audit_slide

__all__ = [
    "AUDIT_COLUMNS",
    "Audit",
    "AuditRow",
    "Cost",
    "Cut",
    "audit_cohort",
    "audit_slide",
    "estimate_cost",
    "measure_blur",
    "save_audit",
]
