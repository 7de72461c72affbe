"""What a device or an app embeds beside the codecs: segmentation, front end, sending, and a spool."""

import os

# A device has one core to spare, and on a busy machine OpenBLAS' threads make matrices as small as these 50 times
# slower (measured: 22 s of log-Mel in 3 ms or 170 ms). OpenBLAS reads this once, when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
