"""`python -m rag_flywheel` is the command line."""

from rag_flywheel.cli import main

main()
