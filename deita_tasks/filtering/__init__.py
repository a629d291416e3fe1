"""Filtering: rows that no selection may keep, found before any model works.

decontamination.py    rows that repeat an evaluation text
words.py              texts as the words that are compared
"""
