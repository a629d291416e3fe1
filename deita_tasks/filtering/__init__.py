"""Filtering: rows that no selection may keep, found before any model works.

decontamination.py    rows that repeat an evaluation text
training_window.py    rows whose answers the training would cut off
words.py              texts as the words that are compared
"""
