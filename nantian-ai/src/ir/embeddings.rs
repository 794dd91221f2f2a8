//! Texts that are to become vectors, and those vectors.

/// A request for vectors.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "codecs build it field by field; a new field must not be forgotten"
)]
pub struct EmbedRequest {
    /// The model.
    pub model: String,
    /// The texts, at least one.
    pub input: Vec<String>,
    /// How long the vectors are to be.
    pub dimensions: Option<u64>,
    /// Whether a text that is too long is cut rather than refused.
    pub truncate: Option<bool>,
    /// Who asks, as an opaque id.
    pub user: Option<String>,
    /// How the client wants the vectors.
    pub form: VectorForm,
}

/// How a client wants its vectors.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "codecs must know each")]
pub enum VectorForm {
    /// As lists of numbers.
    #[default]
    Numbers,
    /// As base64 of their bytes, which is what OpenAI's own clients ask for.
    Base64,
    /// As the one list of numbers that Ollama's older API gives.
    Single,
}

/// Vectors, one for each text, in the order of the texts.
///
/// They are of single precision, as models compute them and as OpenAI's base64 has them.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "codecs build it field by field")]
pub struct Embeddings {
    /// The model that the provider says has made them.
    pub model: Option<String>,
    /// The vectors.
    pub vectors: Vec<Vec<f32>>,
    /// The input tokens, if the provider tells.
    pub tokens: Option<u64>,
}
