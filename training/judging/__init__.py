"""What a network is worth: metrics and calibration."""
