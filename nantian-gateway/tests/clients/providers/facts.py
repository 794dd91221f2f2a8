"""What the fake providers and those who ask them have agreed on."""

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
# The same as pydantic writes it: open.
OPEN_SCHEMA = {name: value for name, value in SCHEMA.items() if name != "additionalProperties"}
PERSON = '{"name": "Ada", "age": 36}'
CITIES = ["Oslo", "Rome"]
KEY = "sk-of-the-operator"
ACCOUNT = "AKID"
REGION = "eu-central-1"
# Names that are known, so that requests are those that such a model takes.
MODELS = {
    "openai": "gpt-5",
    "openai-responses": "gpt-5.2",
    "anthropic": "claude-sonnet-4-5",
    "bedrock": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "gemini": "gemini-3-pro-preview",
    "ollama": "qwen3",
    "claude-opus": "claude-opus-4-8",
    "deepseek": "deepseek-reasoner",
    "mistral": "mistral-large-latest",
}
# A model at Ollama that does not think, and what is said of that.
THOUGHTLESS, DOES_NOT_THINK = "llama3.1:8b", "does not support thinking"
# What a model thinks before it calls tools, if it is asked to think.
THOUGHT = "I think."
# What tools say of each city.
DEGREES = {"Oslo": "3 degrees", "Rome": "20 degrees", "Bern": "9 degrees", "Lima": "18 degrees"}
# What a model ends its answer with that is not told again what it has thought before.
GUESS = ", I guess"
# Questions that take several steps: what the model says, and of which cities it asks, once it knows so many results.
CONVERSATION = {
    "Which is warmest?": {0: (["I ", "look."], ["Oslo", "Rome"]), 2: ([], ["Bern"]), 3: (["Rome is ", "warmest"], [])},
    "And Lima?": {0: ([], ["Lima"]), 1: (["Lima is ", "cooler"], [])},
}
VECTORS = {"one": [0.5, -0.25], "two": [1.0, 2.0]}
