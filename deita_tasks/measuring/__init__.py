"""What models scored, side by side, and what that allows one to say.

scores.py      what one model scored, item by item
intervals.py   how far a difference may be chance
measures.py    the measures of all models, and the sentence
"""
