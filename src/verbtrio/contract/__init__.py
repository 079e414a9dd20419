"""What verbtrio uses of other packages beyond what they document, and whether it is there.

`uses` says how a thing can be used, `hypercorn` lists what the take-over is made of, `check` everything else and looks
at all of it, `needed` is what verbtrio can't work without.
"""
