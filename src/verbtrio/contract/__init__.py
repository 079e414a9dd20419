"""What verbtrio uses of other packages beyond what they document, and whether it is there.

`uses` has the ways to use a name, `hypercorn` lists what the take-over uses, `check` lists everything else and checks
all of it, and `needed` checks what verbtrio can't work without.
"""
