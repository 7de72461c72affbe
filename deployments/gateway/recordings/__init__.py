"""Recordings of any length: cut at pauses, recognised segment by segment, answered at once or as jobs.

`cutting` makes segments of a file, `recognition` has them recognised, `documents` are the answers, `store` keeps jobs,
`jobs` works on them, `webhooks` tells that they have ended, `routes` is the HTTP side.
"""
