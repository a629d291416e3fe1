"""What scoring and embedding share: checkpoints, tokenizers, weights and batches.

checkpoint.py          a folder or hub repository, pinned to its content
hardware.py            device, number type, batch size
tokenizer.py           the checkpoint's own tokenizer
sentencepiece_bpe.py   the same from a tokenizer.model alone
batches.py             batches within a token budget, halved when memory runs out
prefix.py              the beginning that all texts share, computed once
causal_lm.py           hidden state of a decoder at the last token
component.py           base class of components that run a decoder
provided.py            base class of components whose values the user provides
prefetch.py            tokenize the next texts while the model computes
lazy.py                a value loaded once, when first needed
stopping.py            stop long work between batches
quiet.py               load models without the library's progress bars
packaged.py            the model that is installed with the package

Importing this package imports neither torch nor transformers.
"""
