"""`python -m pipelines VERB ...` is `codegan VERB ...`."""

from pipelines.cli import main

main()
