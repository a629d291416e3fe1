"""What scoring and embedding share: finding a checkpoint, its tokenizer, its weights, and running
batches through it.

    checkpoint.py        a folder or a hub id, pinned to what it holds
    hardware.py          device and dtype
    tokenizer.py         the model's own tokenizer, exactly
    sentencepiece_bpe.py the same from a tokenizer.model alone
    batches.py           batches by a token budget, halved when memory runs out
    prefix.py            the beginning that texts share, computed once
    causal_lm.py         the hidden state of a decoder at the last token
    component.py         the options of a component that runs a decoder
    provided.py          the options of one that asks no model
    ahead.py             tokenising beside computing
    lazy.py              a model that a component loads once, when it is first needed
    stopping.py          where long work can be stopped
    quiet.py             loading without the library's own bars

Importing this package imports neither torch nor transformers.
"""
