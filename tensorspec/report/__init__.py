"""Reports: one HTML file each, that opens offline and holds everything."""

from tensorspec.report.of_fit import write_report as write_report
from tensorspec.report.of_occupancy import report_occupancy as report_occupancy
