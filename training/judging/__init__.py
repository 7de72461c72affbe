"""How networks are judged: metrics and calibration."""
