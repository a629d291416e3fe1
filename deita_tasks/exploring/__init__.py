"""Look through a selection in a browser: search, filter, map. Embedding Atlas draws the page.

opening.py      what there is to look at: a result, a version, or what a store holds
conversations.py  texts of a pool, and its columns of few values
numbers.py      scores and token counts, a number for each row
similar.py      where a row lies on the map, and the selected rows that are most like it
table.py        all of these as one table, in a file that is mapped into memory
page.py         the charts of the page
server.py       serve the page on this machine alone, or write a copy of it
"""
