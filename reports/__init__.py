"""Reports from run folders: tables, figures, HTML. Reads and draws; the formulas are in metrics and stats."""

from acn_cl.reports.comparisons import compare as compare
from acn_cl.reports.report import make_report as make_report
from acn_cl.reports.verification import verify as verify
from acn_cl.reports.words import said as said
