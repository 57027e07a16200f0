"""How far generated images are from real ones: the road from images to scores.

`sets` opens the images of a run and the real ones, `networks` and `extraction` turn them into features, `metrics` holds
the formulas, and those of special kinds are in `coverage` and `pairwise`; `entries` makes, keeps and shows the entries
of scores.json. `score` is the verb, `config` its flags, `protocols` the settings of papers; `neighbours` looks for
memorised training images.
"""
