"""How similar rows are: exactly, and with few multiplications.

limit.py             where a similarity is compared with the limit, a block of candidates at a time
exact.py             the similarity itself, one float32 per pair, on any machine
cosine.py            kept rows by cosine similarity; sketches save most of the products
other_metrics.py     kept rows by dot product or distance
products.py          matrix products on a CPU or a GPU
embedding_reader.py  reads the pool's embeddings, normalised, a few rows at a time
"""
