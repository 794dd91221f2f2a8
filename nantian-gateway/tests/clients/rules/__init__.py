"""What real providers refuse: one module for each dialect, pure functions of a request's body.

Each rule says where it is known from, and says what the provider says. What no source tells is no rule. The members that
OpenAI and Anthropic know are those of their own packages, which are generated from the descriptions of their APIs.
"""

import base64
import hashlib
import re
import typing

# What names of tools are made of, at all providers but Gemini.
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Refusal(Exception):
    """What a real provider says when it refuses."""


def need(holds, words):
    if not holds:
        raise Refusal(words)


def members(form):
    """The members that a form of a provider's package knows."""
    return typing.get_type_hints(form).keys()


def forms_by_type(union):
    """The forms of a union by the `type` that each has."""
    forms = {}
    for form in typing.get_args(union):
        kind = str(typing.get_type_hints(form).get("type"))
        for name in re.findall(r"'(\w+)'", kind):
            forms.setdefault(name, []).append(form)
    return {name: {member for form in found for member in members(form)} for name, found in forms.items()}


def signature(family, text):
    """What models of a family sign a text with. It is made of the text alone, so that nobody has to remember it."""
    return base64.b64encode(hashlib.sha256(f"{family}: {text}".encode()).digest()).decode()


def seal(text):
    """What only the model that said it can read."""
    return base64.b64encode(f"{signature('sealed', text)}{text}".encode()).decode()


def is_sealed(sealed):
    try:
        text = base64.b64decode(sealed, validate=True).decode()
    except ValueError:
        return False
    size = len(signature("sealed", ""))
    return text[:size] == signature("sealed", text[size:])
