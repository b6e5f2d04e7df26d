"""`python -m portfsm` is `portfsm`."""

from portfsm.cli import main

main()
