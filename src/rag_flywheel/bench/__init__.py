"""The benchmark room: collections, questions and answer keys to measure the flywheel with.

It must not know how passages are indexed or how votes change that index.
"""
