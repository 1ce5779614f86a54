"""What algorithms make of configurations: how data are read, what is trained, how it acts."""

from ablate.systems import joint, policy
from ablate.systems.system import Program, System, prepare, remarks

__all__ = ["Program", "System", "joint", "policy", "prepare", "remarks"]
