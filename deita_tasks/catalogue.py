"""The components of every stage by name, with the module and class behind each.

A new scorer, embedder, strategy or format is one file and one line here: the form, the command line
and the YAML file take their choices from these tables. A class is imported only when it is chosen,
so that torch or vLLM loads only where it is needed.
"""

from collections.abc import Mapping

Table = Mapping[str, str]

INPUT_FORMATS: Table = {
    "sharegpt": "deita_tasks.loading.sharegpt:ShareGPT",
    "messages": "deita_tasks.loading.messages:Messages",
    "alpaca": "deita_tasks.loading.alpaca:Alpaca",
    "prompt_response": "deita_tasks.loading.prompt_response:PromptResponse",
}

SCORERS: Table = {
    "causal_lm": "deita_tasks.scoring.causal_lm:CausalLMScorer",
    "mini": "deita_tasks.scoring.mini.scorer:MiniScorer",
    "instruction_length": "deita_tasks.scoring.length:InstructionLength",
    "response_length": "deita_tasks.scoring.length:ResponseLength",
    "vllm": "deita_tasks.scoring.vllm:VLLMScorer",
    "openai": "deita_tasks.scoring.completions:CompletionsScorer",
    "provided": "deita_tasks.scoring.provided:ProvidedScorer",
    "judge": "deita_tasks.scoring.judge:JudgeScorer",
}

# Scores with a range of their own, which `rank_by` names; a column of the user's own is
# `provided:NAME`.
NAMED_SCORES: Table = {
    "ifd": "deita_tasks.scoring.language_model:IFD",
    "perplexity": "deita_tasks.scoring.language_model:Perplexity",
}
PROVIDED_SCORE: Table = {"provided_column": "deita_tasks.scoring.provided:ProvidedColumn"}

EMBEDDERS: Table = {
    "causal_lm": "deita_tasks.embedding.causal_lm:CausalLMEmbedder",
    "provided": "deita_tasks.embedding.provided:ProvidedEmbedder",
    "sentence_transformers": (
        "deita_tasks.embedding.sentence_transformers:SentenceTransformersEmbedder"
    ),
}

SELECTORS: Table = {
    "diverse": "deita_tasks.selecting.diverse:Diverse",
    "top_score": "deita_tasks.selecting.top_score:TopScore",
    "random": "deita_tasks.selecting.random:Random",
    "complexity_only": "deita_tasks.selecting.top_score:ComplexityOnly",
    "quality_only": "deita_tasks.selecting.top_score:QualityOnly",
    "length": "deita_tasks.selecting.top_score:Length",
    "k_center": "deita_tasks.selecting.k_center:KCenter",
    "facility_location": "deita_tasks.selecting.facility_location:FacilityLocation",
    "mmr": "deita_tasks.selecting.mmr:MMR",
    "semdedup": "deita_tasks.selecting.semdedup:SemDedup",
    "mig": "deita_tasks.selecting.mig:MIG",
    "relevance": "deita_tasks.selecting.relevance:Relevance",
}

OUTPUT_FORMATS: Table = {
    "input": "deita_tasks.exporting.as_input:AsInput",
    "sharegpt": "deita_tasks.exporting.sharegpt:ShareGPT",
    "messages": "deita_tasks.exporting.messages:Messages",
    "alpaca": "deita_tasks.exporting.alpaca:Alpaca",
    "prompt_response": "deita_tasks.exporting.prompt_response:PromptResponse",
    "parquet": "deita_tasks.exporting.parquet:Parquet",
    "hf_dataset": "deita_tasks.exporting.hf_dataset:HFDataset",
}
