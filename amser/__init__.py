"""The signal path that the device and the cluster share: waveform → log-Mel → bytes, and back to log-Mel.

Needs NumPy, SciPy and google-crc32c; nothing in here knows torch or Ray.
"""
