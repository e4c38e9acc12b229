"""The lab: the dexterous tasks that π0 is evaluated on, on a table before a static robot with one arm or two.

Cloth and cardboard are stiff plates on hinges here; each task says what it is a stand-in for.
"""

from pilot.sims.lab.suites import SUITES, LabSuite

__all__ = ["SUITES", "LabSuite"]
