"""The benchmark room: collections, questions and answer keys to measure the flywheel with."""
