"""The numbers that README and documentation state, each with where it comes from.

`page` finds the numbers of a page and those that nothing accounts for; `results` reads the result
files of the benchmarks. The other modules say, page by page, which sentence has which number.
"""
