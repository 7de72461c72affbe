"""One file a command of `python -m amser`, and what the commands share: terminal, codec options, inputs and outputs."""
