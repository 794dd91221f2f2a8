"""What Gemini's generateContent refuses.

API: https://ai.google.dev/api/generate-content and https://ai.google.dev/api/caching (Content, Tool, Schema)
"""

import json
import re

from . import need, signature

PARAMETERS = {"contents", "tools", "toolConfig", "safetySettings", "systemInstruction", "generationConfig", "cachedContent",
              "serviceTier", "store"}
GENERATION = {
    "stopSequences", "responseMimeType", "responseSchema", "responseJsonSchema", "responseModalities", "candidateCount",
    "maxOutputTokens", "temperature", "topP", "topK", "seed", "presencePenalty", "frequencyPenalty", "responseLogprobs",
    "logprobs",
    "enableEnhancedCivicAnswers", "speechConfig", "thinkingConfig", "imageConfig", "mediaResolution"}
DECLARATION = {"name", "description", "behavior", "parameters", "parametersJsonSchema", "response", "responseJsonSchema"}
PART = {"thought", "thoughtSignature", "partMetadata", "mediaResolution", "videoMetadata", "text", "inlineData", "functionCall",
        "functionResponse", "fileData", "executableCode", "codeExecutionResult"}
DATA = ("text", "inlineData", "functionCall", "functionResponse", "fileData", "executableCode", "codeExecutionResult")
SCHEMA = {"type", "format", "title", "description", "nullable", "enum", "maxItems", "minItems", "properties", "required",
          "minProperties", "maxProperties", "minLength", "maxLength", "pattern", "example", "anyOf", "propertyOrdering",
          "default", "items", "minimum", "maximum"}
# What Google gives who has no signature: https://ai.google.dev/gemini-api/docs/thought-signatures, "FAQ".
STAND_IN = "skip_thought_signature_validator"


def check(body, model):
    check_names(body, PARAMETERS, "")
    check_names(body.get("generationConfig", {}), GENERATION, "generation_config")
    thinking = body.get("generationConfig", {}).get("thinkingConfig", {})
    check_names(thinking, {"includeThoughts", "thinkingBudget", "thinkingLevel"}, "generation_config.thinking_config")
    # https://ai.google.dev/gemini-api/docs/gemini-3, "thinking level".
    need(not {"thinkingBudget", "thinkingLevel"} <= thinking.keys(),
         "You can only set only one of thinking budget and thinking level.")
    for tool in body.get("tools", ()):
        for declaration in tool.get("functionDeclarations", ()):
            check_declaration(declaration)
    need(body["contents"], "contents is not specified")
    for at, content in enumerate(body["contents"]):
        check_content(content, f"contents[{at}]")
    check_calls(body["contents"])
    check_signatures(body["contents"], model)


def check_names(value, known, where):
    """https://github.com/zed-industries/zed/issues/44875"""
    for name in value:
        need(name in known, f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field.")


def check_declaration(declaration):
    name = declaration["name"]
    check_names(declaration, DECLARATION, "tools[0].function_declarations[0]")
    need(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}", name),
         f"Invalid function name {name}. Must start with a letter or an underscore.")
    need(not {"parameters", "parametersJsonSchema"} <= declaration.keys(),
         "parameters and parametersJsonSchema are mutually exclusive")
    check_schema(declaration.get("parameters", {}), "tools[0].function_declarations[0].parameters")


def check_schema(schema, where):
    """A Schema knows fewer keywords than JSON Schema: https://github.com/zed-industries/zed/issues/53919 of lists of types."""
    check_names(schema, SCHEMA, where)
    need(not isinstance(schema.get("type"), list),
         f"Invalid JSON payload received. Unknown name \"type\" at '{where}': Proto field is not repeating, cannot start list.")
    items = [schema["items"]] if "items" in schema else []
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *items]
    for at, part in enumerate(inner):
        check_schema(part, f"{where}.properties[{at}].value")


def check_content(content, where):
    need(content["role"] in ("user", "model"), "Please use a valid role: user, model.")
    need(content["parts"], f"GenerateContentRequest.{where}.parts: contents.parts must not be empty.")
    for at, part in enumerate(content["parts"]):
        check_names(part, PART, f"{where}.parts[{at}]")
        need(sum(kind in part for kind in DATA) == 1,
             f"{where}.parts[{at}].data: required oneof field 'data' must have one initialized field")
        call, result = part.get("functionCall", {}), part.get("functionResponse", {})
        check_names(call, {"id", "name", "args"}, f"{where}.parts[{at}].function_call")
        check_names(result, {"id", "name", "response", "willContinue", "scheduling", "parts"},
                    f"{where}.parts[{at}].function_response")
        for value in (call.get("args", {}), result.get("response", {})):
            need(isinstance(value, dict),
                 f"Invalid value at '{where}.parts[{at}]' (type.googleapis.com/google.protobuf.Struct)")


def names(content, kind):
    return [part[kind]["name"] for part in content["parts"] if kind in part]


def check_calls(contents):
    """https://github.com/google-gemini/gemini-cli/issues/4217"""
    open_calls, last = [], None
    for content in contents:
        calls, results = names(content, "functionCall"), names(content, "functionResponse")
        need(len(results) == len(open_calls),
             "Please ensure that the number of function response parts is equal to the number of function call parts of the "
             "function call turn.")
        need(not calls or last == "user",
             "Please ensure that function call turn comes immediately after a user turn or after a function response turn.")
        open_calls, last = calls, content["role"]
    need(not open_calls,
         "Please ensure that the number of function response parts is equal to the number of function call parts of the "
         "function call turn.")


def check_signatures(contents, model):
    """https://ai.google.dev/gemini-api/docs/thought-signatures: from 3 on the first call of each step of the turn has one."""
    users = [at for at, content in enumerate(contents) if content["role"] == "user" and not names(content, "functionResponse")]
    turn = max(users, default=0)
    for at, content in enumerate(contents):
        for place, part in enumerate(part for part in content["parts"] if "functionCall" in part):
            signed, call = part.get("thoughtSignature"), part["functionCall"]
            need(place or at < turn or signed or not model.startswith("gemini-3"),
                 "Function call is missing a thought_signature in functionCall parts. This is required for tools to work "
                 "correctly, and missing thought_signature may lead to degraded model performance. Additional data, function "
                 f"call `default_api:{call['name']}`, position {at}.")
            need(signed in (None, STAND_IN, sign(call)), "Corrupted thought signature.")


def sign(call):
    return signature("gemini", json.dumps([call["name"], call.get("args", {})], sort_keys=True))
