//! The words by which providers refuse what was wished.

use super::Wish;
use crate::dialect::bedrock;

/// How models refuse a say in how tokens are drawn.
const NO_SAMPLING: [&str; 8] = [
    "Unsupported parameter: 'temperature'",
    "Unsupported parameter: 'top_p'",
    "Unsupported value: 'temperature'",
    "Unsupported value: 'top_p'",
    "invalid temperature: only",
    "invalid top_p: only",
    "This model doesn't support the temperature field",
    "This model doesn't support the topP field",
];

/// How OpenAI refuses reasoning after which nothing comes.
const NOTHING_FOLLOWS: &str = "was provided without its required following item";

/// How models refuse penalties.
const NO_PENALTIES: [&str; 7] = [
    "Penalty is not enabled",
    "Argument not supported on this model: frequencyPenalty",
    "Argument not supported on this model: presencePenalty",
    "Model * does not support parameter frequencyPenalty",
    "Model * does not support parameter presencePenalty",
    "Unsupported parameter: 'frequency_penalty'",
    "Unsupported parameter: 'presence_penalty'",
];

/// What refusals of earlier reasoning say.
const NO_REASONING: [&str; 13] = [
    "in `thinking` block",
    "in `redacted_thinking` block",
    "The encrypted content",
    NOTHING_FOLLOWS,
    // Models of OpenAI and Moonshot at Bedrock, and any there that has no words for it.
    "Encrypted content cannot be used",
    "reasoningContent",
    "encrypted_content",
    "extra_content",
    // Chat Completions, in any words: each provider has its own, and who is behind it is quoted.
    "reasoning_content",
    // Parts that Mistral's models have thought: OpenAI, and servers in Rust.
    "Invalid value: 'thinking'",
    "unknown variant `thinking`",
    // Fireworks; Groq and Cerebras.
    ".reasoning'",
    "'reasoning' is unsupported",
];

/// How `cache_control` is refused, which ends a path or a name there: not that there are too many.
const NO_MARKS: [&str; 5] = [
    "cache_control'",
    "cache_control`",
    "cache_control\"",
    "cache_control\\\"",
    "cache_control: Extra inputs",
];

/// What refusals of a wish say, of which one is enough. Those that teach something about others begin so.
pub(super) fn words_of(wish: Wish) -> &'static [&'static str] {
    match wish {
        Wish::Afterthought => &[NOTHING_FOLLOWS],
        Wish::Betas => &["invalid beta flag"],
        Wish::StandIn => &["extra_content"],
        Wish::Reasoning => &NO_REASONING,
        Wish::Marks => &NO_MARKS,
        Wish::CacheKey => &["prompt_cache_key"],
        Wish::Pictures => &[
            "unknown variant `image_url`, expected `text`",
            "does not support image input",
            "No endpoints found that support image input",
            // vLLM.
            "is not a multimodal model",
            // Bedrock.
            "This model doesn't support the image",
            "At most 0 image(s)",
            // llama.cpp.
            "image input is not supported",
        ],
        Wish::Thinking => &["does not support thinking"],
        Wish::Usage => &["stream_options"],
        Wish::Effort => &["Function tools with reasoning_effort are not supported"],
        Wish::ForcedTool => &[
            "Thinking mode does not support this tool_choice",
            "tool_choice 'required' is incompatible with thinking enabled",
            "tool_choice 'specified' is incompatible with thinking enabled",
            "tool_choice specified is incompatible with thinking enabled",
        ],
        Wish::ToolChoice => &["invalid thinking: only type=enabled is allowed"],
        Wish::Rest => &["Reasoning is mandatory for this endpoint"],
        Wish::MustCall => &["This model doesn't support the toolConfig.toolChoice"],
        Wish::Sampling => &NO_SAMPLING,
        Wish::Silence => &[
            "Missing `reasoning_content`",
            "The `reasoning_content` in the thinking mode must be passed back",
            "The reasoning_content in the thinking mode must be passed back",
            "thinking is enabled but reasoning_content is missing",
        ],
        Wish::Schema => &[
            "output_config.format: Extra inputs",
            // Nova, Cohere, Llama.
            "This model doesn't support the outputConfig field",
            // Groq, and OpenAI's older models.
            "This model does not support response format `json_schema`",
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported",
        ],
        Wish::Cache => &[bedrock::KEEPS_NOTHING],
        Wish::Stop => &["This model doesn't support the stopSequences field"],
        Wish::Stream => &["This model doesn't support tool use in streaming mode"],
        Wish::OlderLimit => &["Unsupported parameter: 'max_tokens'"],
        Wish::NewerLimit => &[
            "Unrecognized request argument supplied: max_completion_tokens",
            "Unknown parameter: 'max_completion_tokens'",
            "Unsupported parameter: 'max_completion_tokens'",
            "max_completion_tokens: Extra inputs",
            // Older versions of vLLM.
            "[{'type': 'extra_forbidden', 'loc': ('body', 'max_completion_tokens')",
        ],
        Wish::Strict => &["tools.*.custom.strict: Extra inputs"],
        Wish::Prefill => &[
            "This model does not support assistant message prefill",
            "Requests ending with a model turn",
            // llama.cpp.
            "Assistant response prefill is incompatible with enable_thinking",
        ],
        Wish::Summary => &[
            "Your organization must be verified to generate reasoning summaries",
            "Unsupported parameter: 'reasoning.summary'",
        ],
        Wish::Encryption => &["Encrypted content is not supported with this model"],
        Wish::Template => &["chat_template is not supported for Mistral tokenizers"],
        Wish::Penalties => &NO_PENALTIES,
    }
}

/// Whether a message begins with these words, in which a star stands for what differs, such as the name of a
/// model.
pub(super) fn begins(message: &str, words: &str) -> bool {
    let Some((before, after)) = words.split_once('*') else { return message.starts_with(words) };
    let differing = message.strip_prefix(before).zip(after.chars().next());
    let rest = differing.and_then(|(rest, end)| rest.get(rest.find(end)?..));
    rest.is_some_and(|rest| rest.starts_with(after))
}
