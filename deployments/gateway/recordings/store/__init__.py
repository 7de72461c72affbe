"""Where jobs are kept: in an SQLite file and files of audio on a node (`embedded`), or in Redis (`shared`).

What is kept has speech and transcripts in it: it is readable for this user alone, is never logged, and goes after its
time; the audio goes when its job ends.
"""
