"""Loading: pools of conversations in, whatever their format; one file a format."""

from deita_tasks.components import Table

FORMATS: Table = {
    "sharegpt": "deita_tasks.loading.sharegpt:ShareGPT",
    "messages": "deita_tasks.loading.messages:Messages",
    "alpaca": "deita_tasks.loading.alpaca:Alpaca",
    "prompt_response": "deita_tasks.loading.prompt_response:PromptResponse",
}
