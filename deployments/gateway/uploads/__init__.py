"""Audio that applications upload: `bodies` finds the file in a request's body, `decoding` decodes it in a process
of its own, and `envelopes` makes of it what a device would have sent.
"""
